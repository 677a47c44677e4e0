"""Clients: their plan, keys, and figures of their own."""

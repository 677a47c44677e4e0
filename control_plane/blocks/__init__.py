"""Blocks: clients, keys, networks and endpoints that are refused everywhere, before any limit."""

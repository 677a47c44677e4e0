"""Webhooks of usage: one signed message when a client reaches a part of a limit, tried until it arrives."""

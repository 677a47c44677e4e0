"""Webhooks of usage: told once when a client reaches a part of a limit, signed, and tried until it arrived."""

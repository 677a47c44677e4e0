"""Credentials, whoever holds them, and how each is rotated."""

"""Overload in virtual time: a queueing model of a backend, and rival ways to protect it."""

"""Answers kept for a day under their ``Idempotency-Key``, so that a request sent twice is done once."""

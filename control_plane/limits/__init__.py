"""Limits: the rows that plans and the rest of the world share, and those outside plans."""

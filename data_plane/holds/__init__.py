"""Leases and reservations: units that are taken before they are used."""

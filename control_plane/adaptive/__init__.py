"""Adaptive policies: how admission follows the load of backends."""

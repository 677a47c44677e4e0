"""Enforcement: the switch that turns limits to shadow and back, for all of them or one, for a while."""

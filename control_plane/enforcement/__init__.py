"""Enforcement overrides: put all limits or one into shadow, or enforce them, for a while."""

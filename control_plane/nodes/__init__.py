"""Nodes and agents: which are connected, what they applied and what they decided."""

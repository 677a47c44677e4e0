"""Ports made real: Redis, peers, control plane stream, snapshot file, clock."""

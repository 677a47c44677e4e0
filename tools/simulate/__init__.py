"""The protocol between regions in virtual time: the service's own steps, with a world that delays, cuts and forgets."""

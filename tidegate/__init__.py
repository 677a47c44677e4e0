"""The `tidegate` command: the composition of both planes, and the local stack."""

"""The node's doors: FastAPI routes, the fast path, forward-auth, errors."""

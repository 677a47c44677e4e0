"""The node's doors: FastAPI routes, the decision lane, forward-auth, errors."""

"""The HTTP of nodes and agents: the fast path, the routes, responses and headers, forward-auth."""

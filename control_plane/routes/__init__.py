"""The route table: endpoints, and the backends that serve them."""

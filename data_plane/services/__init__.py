"""Use cases: decide, apply config, reconcile."""

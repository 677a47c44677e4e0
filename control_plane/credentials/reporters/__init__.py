"""Who may report the load of which backends."""

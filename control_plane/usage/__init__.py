"""Usage: taken from the nodes exactly once, kept by the hour and the day, read, watched, compared with limits."""

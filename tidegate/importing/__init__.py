"""`tidegate import`: another rate limiter's configuration as a file for `apply`, with remarks on what differs."""

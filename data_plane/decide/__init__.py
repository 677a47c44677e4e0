"""From a request to a verdict: the pending check, the denial cache, the store fallback, what is kept of denials."""

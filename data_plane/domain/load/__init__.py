"""Adaptive limits, pure: what reporters say, the factor that follows from it, and who is admitted under it."""

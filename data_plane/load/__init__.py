"""Adaptive limits: reports of backends, the controller that an agent runs, the factor that nodes apply."""

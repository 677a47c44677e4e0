"""People and CI of an OpenID Connect provider: what it vouches for, and which roles that gives."""

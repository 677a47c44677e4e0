"""Tokens of admins and gateways: issued once, listed without their secret, revoked."""

"""Regions, and the credential by which each region's nodes are known."""

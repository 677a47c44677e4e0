"""Strict limits between processes of a region: store epochs, proven shares, what is low. Agents act, nodes read.

The agent (``epochs``) keeps the epoch marker of the store true and says in the region's state that shares are proven;
a node (``watch``) reads who is unreachable and whether it may serve strict limits, and hands on what is low (``low``).
"""

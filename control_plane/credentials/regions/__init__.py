"""The credential by which a region's nodes and agents are known."""

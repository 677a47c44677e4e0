"""Usage on its way: a node tallies and flushes it to the region's stream, an agent ships it."""

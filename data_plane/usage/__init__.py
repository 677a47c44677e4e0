"""Usage: a node tallies and flushes it to the region's stream, and an agent ships the stream."""

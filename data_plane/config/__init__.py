"""The configuration in force: the stream of revisions, the snapshot, the index, and which limits a request meets."""

"""The control plane: what admins write over REST, kept in Postgres as revisions, pushed to every node."""

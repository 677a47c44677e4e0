"""What is compared: one file a variant, each a server that answers a POST."""

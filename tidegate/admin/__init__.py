"""The command line for daily work: one table of resources, and one implementation of every command in it."""

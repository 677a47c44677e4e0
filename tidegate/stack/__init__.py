"""The local stack of `tidegate up`: real servers as child processes of one command."""

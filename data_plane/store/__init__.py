"""The region's store: its client, how scripts are packed, and the host that runs the same scripts in memory."""

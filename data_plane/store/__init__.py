"""The region's store in this process: a key space in memory that runs the scripts of ``lua/`` as Redis would."""

"""What a node and an agent know of the other regions: how limits are divided, whom to ask, what scripts are told.

``rules`` has the times that all agree on; ``quotas`` and ``limits`` say what a region owns of a limit; ``standing`` and
``wire`` pack that for the scripts; ``keys`` finds the limit of a peer's key; ``asking`` and ``messages`` choose whom to
ask for rights. The rules of counting themselves are the scripts in ``lua/``, and nowhere else.
"""

"""Rights of strict limits: store epochs, proven shares, and transfers between regions. Agents act, nodes read.

An agent keeps the epoch marker (``epochs``, ``epoch_store``) and asks other regions for rights of low counters
(``exchange``; ``client`` chooses the peer, ``transfers`` has their parts). A node reads the region's state (``watch``,
``region_state``) and reports low counters (``low_water``).
"""

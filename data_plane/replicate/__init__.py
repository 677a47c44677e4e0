"""Counts between regions, from a marked counter to the peer's acknowledgement.

1. ``lua/marks.lua`` marks a counter of a ``shared`` limit with the instant at which it is due.
2. ``sender`` holds leases on slices, collects due counters by ``count_store`` (``lua/send.lua``), already packed for
   the wire, and queues them for each peer.
3. ``peer_session`` sends one peer's queue in order, one signed message at a time; each answer is an acknowledgement.
4. ``http/peer_handler`` verifies a message, ``receiver`` merges it into this store (``lua/receive.lua``).
5. ``sender`` unmarks what every peer has acknowledged (``lua/send.lua``).

Beside them, ``anti_entropy`` slowly sends everything again and returns lost stores their own counts; ``count_epochs``
tells when a store has lost counts. Messages carry absolute counts, so that they may be lost, doubled or late.
"""

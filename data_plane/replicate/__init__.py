"""Counts between regions, from a marked counter to the peer's acknowledgement.

1. ``lua/marks.lua``: a counter of a ``shared`` limit that counts is marked with the instant at which its news is due.
2. ``sender``: whoever holds a slice's lease collects what is due (``lua/collect.lua``), already as it travels, and puts
   it into each peer's queue.
3. ``peer_session``: one peer's queue, sent in order, one message at a time; what it answers is the acknowledgement.
4. ``receiver``: a verified message of another region, merged into this store (``lua/merge.lua``).
5. ``sender`` again: what every peer has acknowledged is settled (``lua/settle.lua``).

Beside it: ``anti_entropy`` sends everything again, slowly, and hands lost stores their own counts back; ``count_store``
is the store as all of these see it, ``mark_sets`` where its marks lie. Messages carry absolute counts, so that any of
them may be lost, doubled or late.
"""

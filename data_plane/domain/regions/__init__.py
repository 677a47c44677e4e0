"""The protocol between regions, pure: small immutable states, single steps on them, and plain decisions on messages.

Layers, lowest first: ``rules`` and ``frame`` (switches, times, window ids); ``quotas`` and ``marker``; ``terms`` (what
a node hands to a step: the ARGV of a script); ``book`` and ``messages``; then the steps, each one atomic script on a
counter's two keys; then ``telling`` and ``asking``, which no store ever sees: they run in a node.

**Steps.** All take ``terms``, the hot state (``None``: no key), often the book, the event and the store's clock, and
return new states or ``None`` for "write nothing".

==================  =====================================  ===================================================
counter             decide                                 the rest
==================  =====================================  ===================================================
strict window, log  ``rights.decide``, ``put_back``        ``transfers.give``, ``receive``, ``basis``;
                                                           with overdraft ``overdraft.merge_taken``
strict bucket       ``loans.decide_loan``                  ``give_loan``, ``receive_loan``, ``loan_basis``
shared window, log  ``counts.decide_count``                ``merge_cell``, ``own_cells``
shared bucket       ``bucket_counts.decide_level``         ``merge_level``
``regional``        as ``strict``, never asking            -
==================  =====================================  ===================================================

**Hot key.** One packed string, little-endian, first byte a kind that says what follows; a state whose incarnation is
not the marker's counts as none. ``forget_us`` functions give its TTL.

- strict window: incarnation, id, then (taken, net, over, carried, remote) of now and before, (net, remote) of ahead,
  pace (second, units, units before). Zero over, carried, remote and pace need not be stored: most keys need
  incarnation, id, taken, net, taken before, net before.
- strict log: the same, then entries (time, cost) of the last window + skew, oldest first.
- strict bucket: incarnation, epoch, at_us, level, lent, borrowed, lent_before, pace.
- shared window, log: incarnation, id, (taken, returned, remote, reserved) of now and before, remote of ahead, a bit per
  silent peer ("not yet computed" after a rollover is all bits), entries.
- shared bucket: incarnation, at_us, level (signed), born_us, withheld, taken, returned.

**Second key** (``book``), made when a peer first speaks: its store's incarnation (another one's counts as none), then
lists of (region, incarnation, id or birth) with a gift given, a gift received, or a cell; and units reserved by
(region, id). Entries two ids old are dropped at the next write. Its TTL is never shorter than the hot key's.

**A node's part.** ``marker.joined`` on every connect, then ``marker.refusal`` inside every script. After a decision
that says ``low``: read the ``basis``, let ``Asker.whom`` name a peer, send ``Ask``; look again at the time that
``asked`` returns; hand answers to ``receive`` and then ``Asker.answered``, and go on while ``low``. For counts: mark
the key in the same script that changes it; each tick the holder of the slice's lease reads the marks, sends what
``Teller.tell`` yields, feeds ``Ack`` to ``acknowledged`` (when that says so, or the lease is new: mark everything
once), and unmarks ``settled`` ones if unchanged.

The simulator (``tidegate.simulate``) drives exactly these functions in virtual time.
"""

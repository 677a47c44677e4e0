"""The protocol between regions, pure: small immutable states, single steps on them, and plain decisions on messages.

Layers, lowest first: ``rules`` and ``frame`` (switches, times, window ids); ``quotas`` and ``marker``; ``terms`` (what
a node hands to a step: the ARGV of a script); ``book`` and ``messages``; then the steps, each one atomic script on a
counter's two keys; then ``telling`` and ``asking``, which no store ever sees: they run in a node.

**Steps.** All take ``terms``, the hot state (``None``: no key), often the book, the event and the store's clock, and
return new states or ``None`` for "write nothing".

==================  =====================================  ===================================================
counter             decide                                 the rest
==================  =====================================  ===================================================
strict window, log  ``rights.decide``, ``put_back``        ``transfers.give``, ``receive``, ``basis``
strict bucket       ``loans.decide_loan``                  ``give_loan``, ``receive_loan``, ``loan_basis``
shared window, log  ``counts.decide_count``                ``merge_cell``, ``own_cells``
shared bucket       ``bucket_counts.decide_level``         ``merge_level``
``regional``        as ``strict``, never asking            -
==================  =====================================  ===================================================

**In the store.** ``lua/rights.lua``, ``loans.lua`` and ``transfers.lua`` are these steps on strict counters and say how
their two keys are laid out; tests hold them to the pure ones step by step. Counts are kept by the scripts of the local
algorithms, with what peers said beside them (``lua/merge.lua``) and what is kept for silent ones (``lua/silent.lua``).
There nodes differ from the pure states, on the safe side: a silence is named by when it began, and a shared bucket
under one fills by the share of who is heard and withholds nothing: all that silent peers took is debited when it is
heard.

**A node's part.** Every connection joins the store first (``marker.joined``, ``lua/marker.lua``); ``limits`` makes the
terms of a rule, ``keys`` finds the rule of a peer's key, ``wire`` packs both, ``standing`` says who is silent. After a
decision that says ``low``, ``services/rights.py`` reads the ``basis``, lets ``Asker.whom`` name a peer, sends the
question, hands the answer to ``receive`` and ``Asker.answered``, and goes on while ``low``. For counts, a key is marked
in the same script that changes it; each tick the node that holds a slice's lease (``services/reconcile.py``) reads the
marks, sends what ``Teller.tell`` yields, takes answers as ``acknowledged``, and unmarks ``settled`` ones if they are
unchanged.

The simulator (``tidegate.simulate``) drives the steps, ``Teller`` and ``Asker`` in virtual time.
"""

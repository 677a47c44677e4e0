"""A revision on its way by steps: one node, its region, everybody; or back."""

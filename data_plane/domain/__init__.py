"""Pure: no await, no clock, no I/O."""

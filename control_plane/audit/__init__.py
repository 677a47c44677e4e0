"""The audit log: every write with who, what, before, after, why and when; nothing here can be changed afterwards."""

"""The scripts that count in Redis and Valkey, one an algorithm family; each opens with its contract."""

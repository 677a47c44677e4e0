"""What only developers run; no wheel ships it."""

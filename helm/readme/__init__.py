"""Charts' README.md, written from their values."""

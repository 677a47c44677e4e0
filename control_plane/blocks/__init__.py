"""Blocks: who is refused at once, everywhere, whatever limits say."""

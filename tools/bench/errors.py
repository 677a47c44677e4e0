"""What can go wrong in a benchmark, in words for the person who started it."""


class BenchError(Exception):
    """The run cannot go on, or its figures would not mean what they say."""

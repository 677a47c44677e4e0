"""What can go wrong with the local stack, in words for the person at the terminal."""


class StackError(Exception):
    """The stack cannot start or go on; the message says what to do."""


class StopRequestedError(Exception):
    """Somebody pressed Ctrl-C or sent SIGTERM while the stack was starting."""

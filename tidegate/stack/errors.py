"""What can go wrong with the local stack, in words for the person at the terminal."""


class StackError(Exception):
    """The stack cannot start or go on; the message says what to do."""


class PortTakenError(StackError):
    """Another process listens on a port that was free when we chose it; with another one it goes on."""


class StopRequestedError(Exception):
    """Somebody pressed Ctrl-C or sent SIGTERM while the stack was starting."""

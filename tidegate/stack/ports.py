"""TCP ports on the loopback: which are free, and whether a wanted one is taken."""

import errno
import os
import secrets
import socket
import sys
from collections import deque

from tidegate.stack.progress import StackError

LOOPBACK = "127.0.0.1"
FIRST_FREE_PORT = 12_000
FIRST_EPHEMERAL_PORT = 32_768
RESERVATIONS = 100


def free_ports(count: int) -> list[int]:
    """``count`` different ports that nothing listens on at this moment.

    They lie below the range from which Linux takes the ports of outgoing connections (32768 and up), so none of those
    takes one first. No other process that asks here gets the same ones meanwhile.
    """
    free: list[int] = []
    while len(free) < count:
        port = FIRST_FREE_PORT + secrets.randbelow(FIRST_EPHEMERAL_PORT - FIRST_FREE_PORT)
        if port not in free and is_free(port) and _reserve(port):
            free.append(port)
    return free


def is_free(port: int) -> bool:
    """Whether nothing listens on the port at this moment."""
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


_reservations: deque[int] = deque()
"""File descriptors: the operating system closes them when this process ends."""


def _reserve(port: int) -> bool:
    """Hold a name of Linux' abstract namespace for the port, until a hundred others were reserved, or this ends."""
    if sys.platform != "linux":
        return True
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(f"\0tidegate-port-{port}")
    except OSError:
        held.close()
        return False
    _reservations.append(held.detach())
    if len(_reservations) > RESERVATIONS:
        os.close(_reservations.popleft())
    return True


def require_free(port: int, *, wanted_by: str, option: str) -> None:
    """Raise ``StackError`` that names the port, who wants it and how to choose another, when it is taken."""
    with socket.socket() as probe:
        # Without this a port whose last connections are in TIME_WAIT would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StackError(
                    f"port {port} on {LOOPBACK} is taken (wanted by the {wanted_by}): "
                    f"stop what listens there, or choose another with {option}"
                ) from None
            raise StackError(f"port {port} on {LOOPBACK} cannot be used: {error.strerror}") from None

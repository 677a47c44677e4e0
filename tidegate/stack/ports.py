"""TCP ports on the loopback: which are free, and whether a wanted one is taken."""

import errno
import socket
from contextlib import ExitStack

from tidegate.stack.errors import StackError

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """``count`` different ports that nothing listens on at this moment."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]


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

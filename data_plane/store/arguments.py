"""Arguments and replies of commands, in Redis's forms."""

from collections.abc import Sequence

Argument = bytes | str | int | float


class CommandError(Exception):
    """The key space refuses a command, as Redis would; the message begins with Redis's code."""


def text_of(argument: Argument) -> bytes:
    """An argument as Redis receives it: numbers as their shortest decimal text."""
    if type(argument) is bytes:
        return argument
    if isinstance(argument, str):
        return argument.encode()
    return (b"%d" % argument) if argument == int(argument) else repr(argument).encode()


def ttl_of(ttl: Argument) -> int:
    """A time to live. Raises ``CommandError`` where it is not above 0."""
    found = int(ttl)
    if found <= 0:
        raise CommandError("ERR invalid expire time in 'set' command")
    return found


def bound_of(limit: Argument) -> tuple[float, bool]:
    """A bound of scores, and whether it is included."""
    text = text_of(limit).decode()
    return (float(text[1:]), False) if text.startswith("(") else (float(text), True)


def flat(members: Sequence[tuple[bytes, float]], *, with_scores: bool) -> list[bytes]:
    """Members as they are answered, each with its score behind it where that is asked for."""
    if not with_scores:
        return [name for name, _ in members]
    return [part for name, score in members for part in (name, text_of(score))]

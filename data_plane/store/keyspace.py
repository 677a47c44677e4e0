"""Keys and their values in memory, with the commands of Redis that scripts and adapters use.

Time is handed in. A key is gone once the millisecond of its expiry is over, as in Redis; it is hidden then rather than
dropped, so a clock that steps back finds it again. Memory is bounded by the number of keys: the least recently used
give way.
"""

import fnmatch
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

Argument = bytes | str | int | float
"""Of a command; numbers become text, as in Redis."""
Value = bytes | dict[bytes, bytes] | dict[bytes, float] | list[bytes]
NEVER_MS = 2**62
FLAGS = frozenset({b"NX", b"XX", b"LT", b"GT", b"CH"})
T = TypeVar("T", bytes, float)


class CommandError(Exception):
    """The key space refuses a command, as Redis would; the message begins with Redis's code."""


class Keyspace:
    """At most ``max_keys`` keys. ``now_us`` is the server's clock, in microseconds since the epoch."""

    def __init__(self, now_us: Callable[[], int], max_keys: int) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys must be at least 1, not {max_keys}")
        self._now_us = now_us
        self._max_keys = max_keys
        self._values: OrderedDict[bytes, tuple[Value, int]] = OrderedDict()
        self._frozen_us: int | None = None
        self.commands: dict[bytes, Callable[..., object]] = {
            b"DEL": self._del, b"EXISTS": self._exists, b"FLUSHALL": self._flushall, b"GET": self._get,
            b"HDEL": self._hdel, b"HGET": self._hget, b"HMGET": self._hmget, b"HSET": self._hset,
            b"HSETNX": self._hsetnx, b"LPOP": self._lpop, b"LTRIM": self._ltrim,
            b"MGET": self._mget, b"PEXPIRE": self._pexpire, b"PTTL": self._pttl, b"RPUSH": self._rpush,
            b"SET": self._set, b"TIME": self.time, b"ZADD": self._zadd, b"ZCOUNT": self._zcount,
            b"ZRANGE": self._zrange, b"ZRANGEBYSCORE": self._zrangebyscore, b"ZREM": self._zrem,
            b"ZREMRANGEBYSCORE": self._zremrangebyscore,
        }  # fmt: skip
        """By name in capitals; a missing value is ``False``, as a script sees it."""

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: bytes) -> bool:
        return self._found(key) is not None

    def peek(self, key: bytes) -> bytes | None:
        """A string as it is stored, expired or not; the key does not count as used."""
        value, _ = self._values.get(key, (None, 0))
        return value if isinstance(value, bytes) else None

    def freeze(self) -> None:
        """Stop the clock: within a script no time passes."""
        self._frozen_us = self._now_us()

    def thaw(self) -> None:
        """Let the clock go on."""
        self._frozen_us = None

    def execute(self, name: Argument, *arguments: Argument) -> object:
        """One command. Raises ``CommandError`` where it is not one of ``commands``, or on another kind of value."""
        command = self.commands.get(text_of(name).upper())
        if command is None:
            raise CommandError(f"ERR unknown command {text_of(name)!r}")
        if not arguments:
            return command()
        return command(text_of(arguments[0]), *arguments[1:])

    def scan(self, cursor: int, pattern: str, count: int) -> tuple[int, list[bytes]]:
        """A page of about ``count`` keys, in order of name; the cursor 0 begins, and ends."""
        names = sorted(key for key, (_, expires_ms) in self._values.items() if self.now_us() // 1000 <= expires_ms)
        page = names[cursor : cursor + count]
        matching = [key for key in page if fnmatch.fnmatchcase(key.decode("latin-1"), pattern)]
        following = cursor + count
        return (following if following < len(names) else 0), matching

    def copy_into(self, other: "Keyspace") -> None:
        """Put all that is here into another key space."""
        for key, (value, expires_ms) in self._values.items():
            other._values[key] = (value if type(value) is bytes else value.copy(), expires_ms)  # type: ignore[union-attr] # noqa: SLF001

    def now_us(self) -> int:
        """The clock, as commands see it."""
        return self._now_us() if self._frozen_us is None else self._frozen_us

    # Strings

    def get_all(self, keys: Sequence[bytes]) -> list[bytes | bool | None]:
        """What ``GET`` answers for each key; ``None`` where it refuses."""
        values, now_ms = self._values, self.now_us() // 1000
        found: list[bytes | bool | None] = []
        for key in keys:
            kept = values.get(key)
            if kept is None or now_ms > kept[1]:
                found.append(False)
            else:
                values.move_to_end(key)
                found.append(kept[0] if type(kept[0]) is bytes else None)
        return found

    def set_all(self, written: Sequence[Argument]) -> None:
        """``SET`` with ``PX``, many times: key, value and milliseconds of each."""
        values, now_ms = self._values, self.now_us() // 1000
        for key, value, ttl_ms in zip(written[::3], written[1::3], written[2::3], strict=True):
            values[key] = (value, now_ms + int(ttl_ms))  # type: ignore[index,assignment]
        while len(values) > self._max_keys:
            values.popitem(last=False)

    def _get(self, key: bytes) -> bytes | bool:
        found = self._found(key)
        if found is None:
            return False
        if type(found) is not bytes:
            raise CommandError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return found

    def _set(self, key: bytes, value: Argument, *options: Argument) -> object:
        expires_ms = NEVER_MS
        given = iter(options)
        for option in given:
            match text_of(option).upper():
                case b"PX":
                    expires_ms = self.now_us() // 1000 + ttl_of(next(given))
                case b"EX":
                    expires_ms = self.now_us() // 1000 + 1000 * ttl_of(next(given))
                case b"NX":
                    if self._found(key) is not None:
                        return False
                case b"XX":
                    if self._found(key) is None:
                        return False
                case b"KEEPTTL":
                    if self._found(key) is not None:
                        expires_ms = self._values[key][1]
                case other:
                    raise CommandError(f"ERR syntax error at {other!r}")
        self._put(key, text_of(value), expires_ms)
        return b"OK"

    def _mget(self, *keys: bytes) -> list[object]:
        return [value if type(value := self._found(text_of(key))) is bytes else False for key in keys]

    # Keys

    def _del(self, *keys: bytes) -> int:
        return sum(1 for key in keys if self._drop(key))

    def _exists(self, *keys: bytes) -> int:
        return sum(1 for key in keys if self._found(key) is not None)

    def _pexpire(self, key: bytes, ttl_ms: Argument) -> int:
        found = self._found(key)
        if found is None:
            return 0
        self._put(key, found, self.now_us() // 1000 + int(ttl_ms))
        return 1

    def _pttl(self, key: bytes) -> int:
        if self._found(key) is None:
            return -2
        expires_ms = self._values[key][1]
        return -1 if expires_ms == NEVER_MS else expires_ms - self.now_us() // 1000

    def _flushall(self, *_: Argument) -> object:
        self._values.clear()
        return b"OK"

    def time(self) -> list[bytes]:
        """The clock as ``TIME`` answers it: seconds, microseconds."""
        now_us = self.now_us()
        return [b"%d" % (now_us // 1_000_000), b"%d" % (now_us % 1_000_000)]

    # Hashes

    def _hget(self, key: bytes, field: Argument) -> bytes | bool:
        return self._hash(key).get(text_of(field), False)

    def _hmget(self, key: bytes, *fields: Argument) -> list[object]:
        found = self._hash(key)
        return [found.get(text_of(field), False) for field in fields]

    def _hset(self, key: bytes, *pairs: Argument) -> int:
        found = self._hash(key)
        before = len(found)
        found.update({text_of(name): text_of(value) for name, value in zip(pairs[::2], pairs[1::2], strict=True)})
        self._keep(key, found)
        return len(found) - before

    def _hsetnx(self, key: bytes, field: Argument, value: Argument) -> int:
        return 0 if text_of(field) in self._hash(key) else self._hset(key, field, value)

    def _hdel(self, key: bytes, *fields: Argument) -> int:
        found = self._hash(key)
        gone = sum(found.pop(text_of(field), None) is not None for field in fields)
        self._keep(key, found)
        return gone

    def _hash(self, key: bytes) -> dict[bytes, bytes]:
        return _of_kind(self._found(key), bytes)

    # Lists

    def _rpush(self, key: bytes, *items: Argument) -> int:
        found = self._list(key)
        found += map(text_of, items)
        self._keep(key, found)
        return len(found)

    def _lpop(self, key: bytes, count: Argument | None = None) -> object:
        found = self._list(key)
        most = 1 if count is None else int(count)
        taken = found[:most]
        self._keep(key, found[most:])
        if not taken:
            return False
        return taken if count is not None else taken[0]

    def _ltrim(self, key: bytes, start: Argument, stop: Argument) -> object:
        found = self._list(key)
        first, last = (int(at) + (len(found) if int(at) < 0 else 0) for at in (start, stop))
        self._keep(key, found[max(0, first) : last + 1])
        return b"OK"

    def _list(self, key: bytes) -> list[bytes]:
        found = self._found(key)
        if found is not None and not isinstance(found, list):
            raise CommandError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return found or []

    # Sorted sets

    def _zadd(self, key: bytes, *arguments: Argument) -> int:
        given = list(arguments)
        flags = set()
        while given and text_of(given[0]).upper() in FLAGS:
            flags.add(text_of(given.pop(0)).upper())
        found = self._sorted_set(key)
        added = changed = 0
        for score, member in zip(given[::2], given[1::2], strict=True):
            name, number, old = text_of(member), float(score), found.get(text_of(member))
            if (old is None and b"XX" in flags) or (old is not None and b"NX" in flags):
                continue
            if old is not None and ((b"LT" in flags and number >= old) or (b"GT" in flags and number <= old)):
                continue
            added += old is None
            changed += old != number
            found[name] = number
        self._keep(key, found)
        return changed if b"CH" in flags else added

    def _zrem(self, key: bytes, *members: Argument) -> int:
        found = self._sorted_set(key)
        gone = sum(found.pop(text_of(member), None) is not None for member in members)
        self._keep(key, found)
        return gone

    def _zrange(self, key: bytes, start: Argument, stop: Argument, *options: Argument) -> list[bytes]:
        words = [text_of(option).upper() for option in options]
        if b"BYSCORE" in words:
            return self._by_score(key, start, stop, options)
        ordered = self._ordered(key)
        first, last = int(start), int(stop)
        last = last + len(ordered) if last < 0 else last
        return flat(ordered[first : last + 1], with_scores=b"WITHSCORES" in words)

    def _zrangebyscore(self, key: bytes, least: Argument, most: Argument, *options: Argument) -> list[bytes]:
        return self._by_score(key, least, most, options)

    def _by_score(self, key: bytes, least: Argument, most: Argument, options: Sequence[Argument]) -> list[bytes]:
        words = [text_of(option).upper() for option in options]
        low, high = bound_of(least), bound_of(most)
        found = [
            (name, score)
            for name, score in self._ordered(key)
            if (score > low[0] or (score == low[0] and low[1])) and (score < high[0] or (score == high[0] and high[1]))
        ]
        if b"LIMIT" in words:
            at = words.index(b"LIMIT")
            offset, count = int(options[at + 1]), int(options[at + 2])
            found = found[offset:] if count < 0 else found[offset : offset + count]
        return flat(found, with_scores=b"WITHSCORES" in words)

    def _zcount(self, key: bytes, least: Argument, most: Argument) -> int:
        return len(self._by_score(key, least, most, ()))

    def _zremrangebyscore(self, key: bytes, least: Argument, most: Argument) -> int:
        return self._zrem(key, *self._by_score(key, least, most, ()))

    def _ordered(self, key: bytes) -> list[tuple[bytes, float]]:
        return sorted(self._sorted_set(key).items(), key=lambda pair: (pair[1], pair[0]))

    def _sorted_set(self, key: bytes) -> dict[bytes, float]:
        return _of_kind(self._found(key), float)

    # What all stand on

    def _found(self, key: bytes) -> Value | None:
        kept = self._values.get(key)
        if kept is None:
            return None
        now_us = self._now_us() if self._frozen_us is None else self._frozen_us
        if now_us // 1000 > kept[1]:
            return None
        self._values.move_to_end(key)
        return kept[0]

    def _put(self, key: bytes, value: Value, expires_ms: int) -> None:
        self._values[key] = (value, expires_ms)
        if len(self._values) > self._max_keys:
            self._values.popitem(last=False)

    def _keep(self, key: bytes, value: Value) -> None:
        """Replace what a collection holds; it keeps its time, and an empty one is gone."""
        if not value:
            self._drop(key)
            return
        kept = self._values.get(key)
        self._put(key, value, NEVER_MS if kept is None or self._found(key) is None else kept[1])

    def _drop(self, key: bytes) -> bool:
        was_there = self._found(key) is not None
        self._values.pop(key, None)
        return was_there


def _of_kind(found: Value | None, kind: type[T]) -> dict[bytes, T]:
    """A hash or a sorted set, by the type of its values; an empty one where there is none."""
    if found is None:
        return {}
    if not isinstance(found, dict) or not isinstance(next(iter(found.values()), b"" if kind is bytes else 0.0), kind):
        raise CommandError("WRONGTYPE Operation against a key holding the wrong kind of value")
    return found  # type: ignore[return-value]


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

"""Runs the scripts of ``lua/`` in this process, in Lua 5.1 (``lupa``), as Redis runs them.

A script sees ``KEYS``, ``ARGV``, ``redis.call``, ``redis.error_reply`` and ``struct``; replies are converted as Redis
converts them.
"""

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from lupa import lua51

from data_plane.store.keyspace import Argument, CommandError, Keyspace, text_of

try:
    from lupa import luajit21 as fastest  # the same language; it decides in half the time
except ImportError:  # not built for this machine
    fastest = lua51

_FEW = 1_000
"""Keys, values and arguments that are handed over as parameters; more go as tables, since Lua's stack is bounded."""
Reply = Any


class ScriptError(Exception):
    """A script failed, or answered with an error; the message is Redis's."""


class ScriptHost:
    """Lua with the scripts that it has compiled. Key spaces may share one: it runs one script at a time.

    ``engine`` is a module of lupa.
    """

    def __init__(self, engine: Any = fastest) -> None:
        self._lua = engine.LuaRuntime(
            encoding=None, unpack_returned_tuples=True, register_eval=False, register_builtins=False
        )
        self._errors = (engine.LuaError, CommandError, ValueError)
        self._scripts: dict[str, Callable[..., object]] = {}
        self._keyspace: Keyspace | None = None
        here = files(__package__)
        self._lua.globals()[b"struct"] = self._lua.compile((here / "struct.lua").read_bytes())()
        host = self._lua.compile((here / "host.lua").read_bytes())
        self._run, self._run_many, self._hand_back = host(self._execute, self._set_all)

    def text_of(self, source: str) -> str:
        """The text of a script that is compiled for ``source``."""
        return source

    def run(self, keyspace: Keyspace, source: str, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Reply:
        """Run a script on a key space; its reply. Raises ``ScriptError``."""
        script = self._scripts.get(source)
        if script is None:
            script = self._scripts[source] = self._lua.compile(self.text_of(source).encode())
        texts = [one if type(one) is bytes else text_of(one) for one in arguments]
        self._keyspace = keyspace
        keyspace.freeze()
        try:
            time, values = keyspace.time(), keyspace.get_all(keys)
            if 2 * len(keys) + len(texts) <= _FEW:
                reply = self._run(script, *time, len(keys), *keys, *values, *texts)
            else:
                reply = self._run_many(script, *time, *map(self._lua.table_from, (keys, values, texts)))
        except self._errors as error:
            self._hand_back()
            raise ScriptError(str(error)) from error
        finally:
            keyspace.thaw()
        return reply if type(reply) is bytes else self._converted(reply)

    def _execute(self, name: bytes, *arguments: Argument) -> object:
        keyspace = self._keyspace
        if keyspace is None:
            raise CommandError("ERR no script is running")
        reply = keyspace.commands[name](*arguments)
        return self._lua.table_from(reply) if type(reply) is list else reply

    def _set_all(self, *written: Argument) -> None:
        if self._keyspace is not None:
            self._keyspace.set_all(written)

    def _converted(self, reply: Any) -> Reply:
        """A script's value as Redis replies it: numbers lose their fraction, a table ends at its first hole."""
        match reply:
            case None | False:
                return None
            case True:
                return 1
            case int() | bytes():
                return reply
            case float():
                return int(reply)
        if reply[b"err"] is not None:
            raise ScriptError(reply[b"err"].decode())
        found: list[Reply] = []
        while (one := reply[len(found) + 1]) is not None:
            found.append(self._converted(one))
        return found

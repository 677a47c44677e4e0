"""Runs the scripts of ``lua/`` in this process, in Lua 5.1 (``lupa``), as Redis runs them.

A script sees ``KEYS``, ``ARGV``, ``redis.call``, ``redis.error_reply`` and ``struct``; replies are converted as Redis
converts them.
"""

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from lupa import lua51

from data_plane.store.keyspace import Argument, CommandError, Keyspace, text_of

_FEW = 200
"""Keys and arguments that are handed over as parameters; more go as tables, since Lua's stack is bounded."""
_RUNNER = b"""
function(run, count, ...)
  local keys, arguments = { ... }, {}
  for i = count + 1, #keys do
    arguments[i - count], keys[i] = keys[i], nil
  end
  KEYS, ARGV = keys, arguments
  return run()
end
"""
Reply = Any


class ScriptError(Exception):
    """A script failed, or answered with an error; the message is Redis's."""


class ScriptHost:
    """Lua with the scripts that it has compiled. Key spaces may share one: it runs one script at a time."""

    def __init__(self) -> None:
        self._lua = lua51.LuaRuntime(
            encoding=None, unpack_returned_tuples=True, register_eval=False, register_builtins=False
        )
        self._scripts: dict[str, Callable[..., object]] = {}
        self._keyspace: Keyspace | None = None
        self._runner = self._lua.eval(_RUNNER)
        names = self._lua.globals()
        names[b"redis"] = self._lua.table_from({b"call": self._call, b"error_reply": self._error_reply})
        names[b"struct"] = self._lua.compile((files(__package__) / "struct.lua").read_bytes())()

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
            if len(keys) + len(texts) <= _FEW:
                reply = self._runner(script, len(keys), *keys, *texts)
            else:
                names = self._lua.globals()
                names[b"KEYS"], names[b"ARGV"] = self._lua.table_from(keys), self._lua.table_from(texts)
                reply = script()
        except (lua51.LuaError, CommandError, ValueError) as error:
            raise ScriptError(str(error)) from error
        finally:
            keyspace.thaw()
        return reply if type(reply) is bytes else self._converted(reply)

    def _call(self, name: bytes, *arguments: Argument) -> object:
        keyspace = self._keyspace
        if keyspace is None:
            raise CommandError("ERR no script is running")
        reply = keyspace.commands[name](*arguments)
        return self._lua.table_from(reply) if type(reply) is list else reply

    def _error_reply(self, message: bytes) -> object:
        return self._lua.table_from({b"err": message})

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

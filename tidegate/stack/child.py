"""A child process that never outlives us: started, watched, stopped in bounded time."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tidegate.stack.progress import StackError

_PR_SET_PDEATHSIG = 1
POLL_S = 0.05


class Child:
    """One server process in a session of its own, with its output in ``log_path``.

    Secrets reach it through ``env``, never through ``command``, which every user of the machine can read. Start it from
    the main thread: on Linux the kernel sends ``stop_signal`` when the thread that started it ends, so that nothing is
    left behind even when we are killed with SIGKILL.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        directory: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._directory = directory
        self._command = [str(part) for part in command]
        self.env = inherited_environment() | dict(env or {})
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; the child must have been started."""
        return self._started().pid

    def start(self) -> None:
        """Start it; returns at once."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self._directory,
                start_new_session=True,
                preexec_fn=_die_with_parent(self._stop_signal),  # noqa: PLW1509 - started from the main thread only
            )

    def exit_code(self) -> int | None:
        """``None`` while it runs; its exit code (negative: the signal) once it ended."""
        return self._started().poll()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Ask it to stop, wait ``timeout_s`` at most, then kill it and whatever it left in its session."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End it as a crash would: SIGKILL, no warning."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that it wrote."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])


def wait_until_ready(
    child: Child, is_ready: Callable[[], bool], *, timeout_s: float, interrupted: Callable[[], None] = lambda: None
) -> None:
    """Wait until ``is_ready()``; raise ``StackError`` with the end of its log when it dies or takes too long.

    ``interrupted`` is called between tries and may raise to give up.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        interrupted()
        code = child.exit_code()
        if code is not None:
            raise StackError(f"{child.name} ended with {exit_words(code)} while starting\n{_quoted_log(child)}")
        if is_ready():
            return
        if time.monotonic() > deadline:
            raise StackError(f"{child.name} was not ready after {timeout_s:.0f} s\n{_quoted_log(child)}")
        time.sleep(POLL_S)


def wait_until_done(child: Child, *, timeout_s: float, interrupted: Callable[[], None] = lambda: None) -> None:
    """Wait for a child that does one thing and ends; raise ``StackError`` with the end of its log when it fails."""
    deadline = time.monotonic() + timeout_s
    try:
        while (code := child.exit_code()) is None:
            interrupted()
            if time.monotonic() > deadline:
                raise StackError(f"{child.name} did not end within {timeout_s:.0f} s\n{_quoted_log(child)}")
            time.sleep(POLL_S)
    finally:
        child.stop()
    if code:
        raise StackError(f"{child.name} failed with {exit_words(code)}\n{_quoted_log(child)}")


def exit_words(code: int) -> str:
    """``signal SIGKILL`` or ``exit code 1``."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def inherited_environment() -> dict[str, str]:
    """Our environment without our own settings: a child gets exactly those that it is given."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}


def _quoted_log(child: Child) -> str:
    tail = "\n".join(f"  | {line}" for line in child.log_tail().splitlines())
    return f"{tail}\n  (whole log: {child.log_path})" if tail else "  (it wrote nothing)"


def _die_with_parent(stop_signal: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def between_fork_and_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, int(stop_signal))
        if os.getppid() != parent:  # the parent died before the line above
            os._exit(1)

    return between_fork_and_exec

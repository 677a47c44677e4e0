"""Nodes and agents as forks of a process that imported them once: each import would take a second of CPU.

Whether ``python -m tidegate`` starts is for other tests, such as ``tests/integration/node/test_process.py``.
"""

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import parent_process
from pathlib import Path

from tidegate.cli import main
from tidegate.stack.child import Child


class ForkedChild(Child):
    """``words`` are what a user types after ``tidegate``."""

    def __init__(self, name: str, *words: str, log_path: Path, env: Mapping[str, str]) -> None:
        super().__init__(name, words, log_path=log_path, env=env)

    def start(self) -> None:
        """Start it; returns at once."""
        ForkServerContext().set_forkserver_preload(["data_plane.main", "tidegate.cli"])
        self._process = _Fork(target=_be_tidegate, args=(self._command, self.env, self.log_path), daemon=True)
        self._process.start()


class _Fork(ForkServerProcess):
    """A process with what ``Child`` asks of ``subprocess.Popen``."""

    def poll(self) -> int | None:
        return self.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> None:
        self.join(timeout)
        if self.exitcode is None:
            raise subprocess.TimeoutExpired(self.name, timeout)


def _be_tidegate(words: Sequence[str], env: Mapping[str, str], log_path: Path) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.setsid()
    with log_path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["tidegate", *words]
    gc.freeze()
    main()


def _end_with_parent() -> None:
    parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)

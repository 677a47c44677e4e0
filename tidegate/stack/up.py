"""`tidegate up`: start the local stack, report when it is ready, watch it, stop it."""

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from tidegate.stack.child import Child, exit_words
from tidegate.stack.demo import set_up_demo, suggestions
from tidegate.stack.keyring import open_admin_token, open_keyring
from tidegate.stack.layout import DataDir, StackOptions, require_sound
from tidegate.stack.local import LocalStack
from tidegate.stack.progress import PortTakenError, Progress, StackError, StopRequestedError

WATCH_S = 0.25
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_up(options: StackOptions) -> int:
    """Run the local stack until Ctrl-C or SIGTERM; returns the exit code."""
    progress = Progress()
    # An Event would wait for itself for ever when a second signal comes while the first is being taken.
    asked_to_stop = SimpleQueue[int]()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, _frame: asked_to_stop.put(number))

    def interrupted() -> None:
        if not asked_to_stop.empty():
            raise StopRequestedError

    keeps_no_logs = False
    try:
        require_sound(options)
        for line in options.settings.ignored:
            progress.trouble(line)
        with _data_dir(options.data_dir) as data_dir:
            token, made = open_admin_token(data_dir, options.admin_token)
            keyring = open_keyring(data_dir, options.regions)
            new_stack = partial(LocalStack, options, data_dir, keyring, progress=progress, interrupted=interrupted)
            new_stack().require_settings()
            if made:
                progress.result(f"admin token: {token} (kept in {data_dir.admin_token})")
            keeps_no_logs = options.data_dir is None
            stack = started(new_stack, token, progress)
            try:
                if options.demo:
                    with progress.step("demo"), contextlib.closing(stack.admin_api(token)) as admin:
                        set_up_demo(admin, keyring)
                    for line in suggestions(keyring, stack.nodes, stack.control_plane_url, str(data_dir.admin_token)):
                        progress.result(line)
                _say_console(stack, token, progress)
                _say_ready(stack, data_dir, progress)
                _watch(stack.children(), asked_to_stop, progress)
            finally:
                _stop(stack, progress)
    except StackError as error:
        progress.trouble(str(error))
        if keeps_no_logs:
            progress.note("the logs went with the temporary directory: --data-dir keeps them")
        return 1
    except OSError as error:  # a disk that is full, a directory that changed under us
        progress.trouble(f"{error.filename or options.data_dir or 'a file'}: {error.strerror}")
        return 1
    except StopRequestedError:
        progress.note("stopped before it was ready")
        return 130
    progress.note("stopped")
    return 0


def started(new_stack: Callable[[], LocalStack], token: str, progress: Progress) -> LocalStack:
    """A stack that is ready. It is tried with other ports when somebody takes one first, and stopped on any error."""
    for is_last in (False, False, True):
        stack = new_stack()
        with contextlib.ExitStack() as undoing:
            undoing.callback(_stop, stack, progress)
            try:
                stack.start(token)
            except PortTakenError:
                if is_last:
                    raise
                progress.note("another process took a port first: once more, with others")
                continue
            undoing.pop_all()
            return stack
    raise AssertionError("the last try returns or raises")


def _stop(stack: LocalStack, progress: Progress) -> None:
    progress.note("stopping")
    stack.stop()


def _say_console(stack: LocalStack, token: str, progress: Progress) -> None:
    """Print a link that logs in at the console once; nothing where the console is off."""
    with contextlib.suppress(StackError), contextlib.closing(stack.admin_api(token)) as admin:
        path = admin.post("/v1/console/links", {})["path"]
        progress.result(f"console: {stack.control_plane_url}{path} (logs in once, within 15 minutes)")


def _say_ready(stack: LocalStack, data_dir: DataDir, progress: Progress) -> None:
    progress.note(f"logs: {data_dir.logs}")
    if stack.trusts_network:
        progress.note("the gateway network is trusted: whoever reaches a node's port may ask it, for any client")
    parts = [f"control plane {stack.control_plane_url}", *(f"{place.name} {place.url}" for place in stack.nodes)]
    progress.result("ready: " + ", ".join(parts))


def _watch(children: list[Child], asked_to_stop: SimpleQueue[int], progress: Progress) -> None:
    """Until asked to stop: report a part that ended by itself, once. The others go on, as they would in production."""
    alive = list(children)
    while not _taken(asked_to_stop):
        for child in [one for one in alive if one.exit_code() is not None]:
            alive.remove(child)
            words = exit_words(child.exit_code() or 0)
            tail = "".join(f"\n  | {line}" for line in child.log_tail(10).splitlines())
            progress.trouble(f"{child.name} ended with {words}; the rest goes on{tail}\n  (log: {child.log_path})")


def _taken(asked_to_stop: SimpleQueue[int]) -> bool:
    """Whether somebody asks within ``WATCH_S``."""
    try:
        asked_to_stop.get(timeout=WATCH_S)
    except Empty:
        return False
    return True


@contextlib.contextmanager
def _data_dir(kept: Path | None) -> Iterator[DataDir]:
    """The directory to keep, locked against a second `up`; or a temporary one, removed at the end."""
    if kept is None:
        root = Path(tempfile.mkdtemp(prefix="tidegate-"))
        try:
            yield _furnished(root)
        finally:
            shutil.rmtree(root)
        return
    root = kept.resolve()
    data_dir = _furnished(root)
    with data_dir.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"another `tidegate up` uses the data directory {root}: stop it, or name another"
            ) from None
        yield data_dir


def _furnished(root: Path) -> DataDir:
    data_dir = DataDir(root)
    try:
        for directory in (root, data_dir.logs, data_dir.root / "snapshots"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(f"--data-dir {root} cannot be used: {error.strerror}") from None
    if not os.access(root, os.W_OK):
        raise StackError(f"--data-dir {root} cannot be written")
    return data_dir

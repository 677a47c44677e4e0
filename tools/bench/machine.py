"""The machine: which core does what, how busy each is, and what is installed."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import msgspec

from tidegate.stack.store import valkey_binary
from tools.bench.errors import BenchError

_PACKAGES = ("fastapi", "uvicorn", "uvloop", "httptools", "msgspec", "redis", "hiredis", "limits", "pydantic")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Cores(NamedTuple):
    """One core for the server under test alone, one for the load generator and the store."""

    server: int
    load: int


class CoreTimes(NamedTuple):
    """One core's busy time (seconds since boot, all of its work) and when it was read."""

    busy_s: float
    at_s: float


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures belong to."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    system: str
    python: str
    versions: dict[str, str]
    load_average: float
    niceness: int


def pick_cores() -> Cores:
    """The first two cores that we may use; the same one twice where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[1] if len(usable) > 1 else usable[0])


@contextlib.contextmanager
def bound_to(core: int) -> Iterator[None]:
    """Run on one core; a process that is started meanwhile is bound to it for good, with all its threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def process_cpu_s(pid: int) -> float:
    """CPU seconds that all threads of a process have used: its own clock of the kernel, exact to the microsecond."""
    return time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED of the process, as clock_getcpuclockid(3) makes it


def core_times(core: int) -> CoreTimes:
    """How long a core has been busy, whoever kept it so; time stolen by the hypervisor counts as busy."""
    prefix = f"cpu{core} "
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(prefix))
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_guest = map(int, line.split()[1:])
    return CoreTimes((user + nice + system + irq + softirq + steal) / _TICKS_PER_S, time.monotonic())


def stolen_s() -> float:
    """Seconds since boot in which the hypervisor had a core of this machine do something else, to the hundredth."""
    steal = Path("/proc/stat").read_text().split(maxsplit=9)[8]
    return int(steal) / _TICKS_PER_S


def raise_priority(niceness: int) -> None:
    """Put this process ahead of other work on the machine (needs root); ``favour`` passes that on to children."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    except PermissionError:
        raise BenchError("only root may raise the priority") from None
    favour(os.getpid())


def favour(pid: int) -> None:
    """Give a process in a session of its own our priority: Linux shares the cores between sessions first."""
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    autogroup = Path(f"/proc/{pid}/autogroup")
    if niceness and autogroup.exists():
        autogroup.write_text(str(niceness))


@contextlib.contextmanager
def woken_at_once(*pids: int, ours: bool = False) -> Iterator[None]:
    """Where our priority is raised, run these processes and their children in the real-time class meanwhile.

    With ``ours`` also this one, and what it starts meanwhile. Two that share a core wait for each other's time slices
    otherwise (milliseconds), which says nothing of either.
    """
    if not os.getpriority(os.PRIO_PROCESS, 0):
        yield
        return
    threads = [thread for pid in pids for thread in _threads(pid)] + [os.getpid()] * ours
    try:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1))
        yield
    finally:
        for thread in threads:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _threads(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield int(task.name)
        for child in (task / "children").read_text().split():
            yield from _threads(int(child))


def describe() -> Machine:
    """The machine and the versions of everything that takes part."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=cpu.group(1) if cpu else platform.machine(),
        cores=os.cpu_count() or 1,
        memory_gib=round(memory / 2**30, 1),
        kernel=platform.release(),
        system=_os_name(),
        # one that was built without profile-guided optimisation is a tenth to a sixth slower
        python=f"{platform.python_version()} ({os.path.realpath(sys.executable)})",
        versions=_versions(),
        load_average=os.getloadavg()[0],
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
    )


def source_revision() -> str:
    """The commit that is measured, and whether files differ from it; ``unknown`` outside a clone."""
    git = shutil.which("git")
    here = Path(__file__).parent
    if git is None:
        return "unknown"
    commands = ([git, "rev-parse", "--short=12", "HEAD"], [git, "status", "--porcelain", "--untracked-files=no"])
    ran = [subprocess.run(one, cwd=here, capture_output=True, text=True, timeout=10, check=False) for one in commands]
    if any(one.returncode for one in ran):
        return "unknown"
    commit, changed = (one.stdout.strip() for one in ran)
    return f"{commit}, with changes that are not committed" if changed else commit


def tool(name: str) -> Path | None:
    """Where a program is, if it is installed; Debian keeps servers out of a user's PATH."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for name, path, flag in (
        ("wrk", tool("wrk"), "-v"),
        ("nginx", tool("nginx"), "-v"),
        ("Redis", tool("redis-server"), "--version"),
        ("Valkey", valkey_binary(), "--version"),
    ):
        if path is not None:
            ran = subprocess.run([path, flag], capture_output=True, text=True, timeout=10, check=False)
            number = re.search(r"\d+\.\d+[.\d]*", ran.stdout + ran.stderr)
            found[name] = number.group(0) if number else "?"
    return found

"""The registry of jobs. Each domain makes its :class:`Job`; ``control_plane/schedule.py`` gathers them."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

DEFAULT_TIMEOUT_S = 300.0


async def _never() -> bool:
    return False


@dataclass(frozen=True)
class Job:
    """Something done every ``every_s`` seconds on the leader, and by hand with ``POST /v1/jobs/{name}/run``.

    ``run`` takes nothing (what it needs is bound where the job is made) and answers in one sentence what it did, which
    ``GET /v1/jobs`` shows. An exception is a failed run: it is recorded and logged, and the next run comes as planned.
    A run is cancelled after ``timeout_s``, and when this replica ceases to lead. It commits in transactions of its own
    and must be right when it is repeated: a leader can die between a commit and its record.
    """

    name: str
    every_s: float
    run: Callable[[], Awaitable[str]]
    timeout_s: float = DEFAULT_TIMEOUT_S
    share: float = 1.0
    """The part of the time that it may take: with 0.1, a run of 20 s is followed by 180 s without one."""
    idle: Callable[[], Awaitable[bool]] = _never
    """Whether a run would find nothing to do; it writes nothing. After a run that went well, such a one is left out."""

    def __post_init__(self) -> None:
        if self.every_s <= 0 or self.timeout_s <= 0:
            raise ValueError(f"job {self.name}: every_s and timeout_s must be more than 0")
        if not 0 < self.share <= 1:
            raise ValueError(f"job {self.name}: share must be more than 0 and at most 1")

    def rest_s(self, took_s: float) -> float:
        """The pause after a run of ``took_s``."""
        return took_s * (1 / self.share - 1)


class Registry:
    """The jobs of this process by name."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs: dict[str, Job] = {}
        for job in jobs:
            if job.name in self._jobs:
                raise ValueError(f"two jobs are named {job.name}")
            self._jobs[job.name] = job

    def get(self, name: str) -> Job | None:
        """The job of that name."""
        return self._jobs.get(name)

    def __iter__(self) -> Iterator[Job]:
        """All jobs, by name."""
        return iter(sorted(self._jobs.values(), key=lambda job: job.name))

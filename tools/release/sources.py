"""What is built: the files that git tracks, in a folder of their own, and the instant that their archives carry."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple


class SourceError(Exception):
    """Nothing can be built from this tree; the message says why."""


class Sources(NamedTuple):
    """``commit`` is a full hash; ``changed`` says that files differ from it; ``epoch_s`` is in every archive."""

    directory: Path
    commit: str
    changed: bool
    epoch_s: int


def exported(root: Path, into: Path) -> Sources:
    """Copy what git tracks at ``root``, as it is now: no untracked file (`.env`, keys) can reach an artefact."""
    try:
        top = Path(_git(root, "rev-parse", "--show-toplevel").strip())
        tracked = _git(root, "ls-files", "-z").split("\0")
        commit = _git(root, "rev-parse", "HEAD").strip()
        changed = bool(_git(root, "status", "--porcelain").strip())
        epoch = os.environ.get("SOURCE_DATE_EPOCH") or _git(root, "log", "-1", "--format=%ct").strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise SourceError(f"{root} is no git repository that can be read: {error}") from None
    if top != root.resolve():
        raise SourceError(f"{root} is no git repository: it lies in that of {top}")
    for name in filter(None, tracked):
        source, copy = root / name, into / name
        if source.is_symlink() or not source.exists():
            continue  # deleted and not yet committed
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    if not epoch.isdigit():
        raise SourceError("SOURCE_DATE_EPOCH must be seconds since 1970")
    return Sources(into, commit, changed, int(epoch))


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

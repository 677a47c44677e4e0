"""What the commands do: the file to standard output or a path, remarks to standard error. Exit code 1 is an error."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tidegate.file.document import FileError, to_yaml
from tidegate.importing import envoy_ratelimit, kong
from tidegate.importing.remarks import Remarks
from tidegate.importing.source import read
from tidegate.terminal import Fitting, output
from tidegate.terminal import errors as standard_error

DONE, FAILED = 0, 1
Import = Callable[[Remarks], tuple[dict[str, Any], str]]


def run_envoy_ratelimit(files: Sequence[Path], out: Path | None) -> int:
    """Import the files of envoyproxy/ratelimit, as one configuration."""
    return _run(files, out, lambda remarks: envoy_ratelimit.imported([read(path) for path in files], remarks))


def run_kong(file: Path, out: Path | None) -> int:
    """Import a declarative file of Kong."""
    return _run([file], out, lambda remarks: kong.imported(read(file), remarks))


def _run(files: Sequence[Path], out: Path | None, imported: Import) -> int:
    errors, remarks = standard_error(), Remarks()
    try:
        content, guide = imported(remarks)
    except FileError as error:
        errors.print(f"{error}", style="red", markup=False)
        return FAILED
    names = ", ".join(ascii(path.name) for path in files)
    head = f"# Imported from {names}. Look through it, then: tidegate diff -f FILE\n#\n"
    comments = remarks.as_comments()
    text = f"{head}{guide}" + (f"#\n{comments}" if comments else "") + "\n" + to_yaml(content)
    if out is None:
        output().out(text, end="")
    else:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            errors.print(f"{out}: {error.strerror}", style="red", markup=False)
            return FAILED
    if remarks.all:
        errors.print(Fitting(remarks.as_table()))
    return DONE

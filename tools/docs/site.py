"""The site of the documentation, a folder a version: ``python -m tools.docs.site [--out site]``. Needs no network."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import typer
from mkdocs.commands.build import build
from mkdocs.config import load_config

from tools.docs.reference import ROOT

_TO_LATEST: Final = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={}/index.html">\n'


def build_site(out: Path) -> Path:
    """Build this version beside those that are there; its folder. A broken link ends it."""
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")  # a notice on every build that no reader of the log needs
    name = version("tidegate")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(out / name), strict=True)
    build(config)
    versions = sorted(
        (path.name for path in out.iterdir() if (path / "index.html").exists()), key=_order, reverse=True
    )  # fmt: skip
    listed = [{"version": one, "title": one, "aliases": ["latest"] if one == versions[0] else []} for one in versions]
    (out / "versions.json").write_text(json.dumps(listed, indent=2) + "\n", "utf-8")
    (out / "index.html").write_text(_TO_LATEST.format(versions[0]), "utf-8")
    return out / name


def _order(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".") if part.isdigit())


def main(out: Annotated[Path, typer.Option(help="Where versions lie beside each other.")] = ROOT / "site") -> None:
    """Build the documentation of this version."""
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(f"open {build_site(out) / 'index.html'}")


if __name__ == "__main__":
    typer.run(main)

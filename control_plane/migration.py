"""Migrations of the schema, and which there are."""

import functools

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from tidegate.bundled import directory

MIGRATES_ALONE = 0x71DE6A7F
"""The advisory lock of migrations: of two processes, the second finds the work done."""


def migrate(url: str, revision: str = "head") -> None:
    """Bring the schema at ``url`` up to ``revision``. Blocks; from a running event loop call it in a thread."""
    command.upgrade(migration_config(url), revision)


def revert(url: str, revision: str) -> None:
    """Take the schema at ``url`` down to ``revision`` (``base``: nothing is left). Blocks."""
    command.downgrade(migration_config(url), revision)


def migration_config(url: str) -> Config:
    """Alembic's configuration, made here and nowhere else."""
    config = Config()
    config.set_main_option("script_location", str(directory("migrations")))
    config.attributes["url"] = url
    return config


@functools.cache
def revisions() -> tuple[str, ...]:
    """Every revision id that a database can be at, oldest first: a line without branches."""
    script = ScriptDirectory.from_config(migration_config(""))
    return tuple(reversed([revision.revision for revision in script.walk_revisions()]))


def newest_migration() -> str:
    """The revision id that a migrated database is at."""
    return revisions()[-1]

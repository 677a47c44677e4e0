"""Where Postgres is: one URL, spelled as SQLAlchemy or libpq does, that everybody who connects reads the same way."""

from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

ENGINE_URL = "postgresql+asyncpg://"
"""Names the dialect alone: engines connect by ``async_creator``, so that pool, listeners and migrations do the same."""
SCHEMES = {"postgresql+asyncpg", "postgresql", "postgres"}
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SSL_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")


def libpq_url(url: str) -> str:
    """Return the URL as libpq and asyncpg spell it: no driver, ``sslmode`` where SQLAlchemy says ``ssl``.

    Raises ``ValueError``, without what is in the URL, for one that cannot work, or whose files are not there.
    """
    try:
        parts = make_url(url)
        usable = parts.drivername in SCHEMES and (parts.port or 0) < 2**16
    except (ArgumentError, ValueError):
        usable = False
    if not usable:
        raise ValueError("must be postgresql://user:password@host:port/database")
    query = dict(parts.query)
    modes = {query.pop(name) for name in ("ssl", "sslmode") if name in query}
    if len(modes) > 1 or not modes <= set(SSL_MODES):
        raise ValueError(f"sslmode must be one of {', '.join(SSL_MODES)}")
    for mode in modes:
        query["sslmode"] = mode
    for name in SSL_FILES:
        if name in query and not _readable(query[name]):
            raise ValueError(f"{name} must name a file that can be read")
    return parts.set(drivername="postgresql", query=query).render_as_string(hide_password=False)


def _readable(path: object) -> bool:
    try:
        with Path(str(path)).open("rb"):
            return True
    except OSError:
        return False

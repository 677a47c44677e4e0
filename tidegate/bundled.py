"""Files that are no Python: the scripts in ``lua`` and the migrations. A wheel has them inside, a clone beside."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def directory(name: str) -> Path:
    """Where ``lua`` or ``migrations`` lies."""
    packaged = PACKAGE / name
    return packaged if packaged.is_dir() else PACKAGE.parent / name

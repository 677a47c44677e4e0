"""Where in a file an error is, in the words of the file: ``plans.free.limits.hourly.by``."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy.exc import IntegrityError

from control_plane.errors import ConflictError, FieldError, InvalidError
from control_plane.publishing.writer import conflict_of

_PLACE = re.compile(r"^limits\[(\d+)\]")


@contextmanager
def within(path: str, limits: Sequence[str] = ()) -> Iterator[None]:
    """Say of every error in the block that it is at ``path``, in the words of the file."""
    try:
        yield
    except InvalidError as error:
        faults = [FieldError(f"{path}.{_in_file(item.field, limits)}", item.message) for item in error.errors]
        raise InvalidError(faults) from None
    except ConflictError as error:
        raise _conflict_at(path, str(error)) from None
    except IntegrityError as error:
        raise _conflict_at(path, str(conflict_of(error))) from error
    except ValueError as error:
        raise InvalidError([FieldError(path, str(error))]) from None


def _conflict_at(path: str, message: str) -> ConflictError:
    return ConflictError(f"{path}: {message}", [FieldError(path, message)])


def _in_file(field: str, limits: Sequence[str]) -> str:
    place = _PLACE.match(field)
    if place is not None and int(place[1]) < len(limits):
        field = f"limits.{limits[int(place[1])]}{field[place.end() :]}"
    head, dot, last = field.rpartition(".")
    names = {"scope": "by", "method": "route", "path": "route"}
    return f"{head}{dot}{names.get(last, last)}"

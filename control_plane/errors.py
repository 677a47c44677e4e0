"""What can go wrong in the control plane, in its own words; ``web/problems.py`` translates to HTTP once."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class FieldError(NamedTuple):
    """One wrong field, as ``limits[0].burst``, and what is wrong with it."""

    field: str
    message: str


class ControlPlaneError(Exception):
    """The root of the tree; ``str()`` is a sentence for the caller and never holds a secret."""


class NotFoundError(ControlPlaneError):
    """What was named does not exist."""


class ConflictError(ControlPlaneError):
    """The write contradicts what exists: the name is taken, or something still uses it."""

    def __init__(self, message: str, errors: Iterable[FieldError] = (), **members: str) -> None:
        super().__init__(message)
        self.errors = tuple(errors)
        """Where in a body it lies, if that is known."""
        self.members = members


class InvalidError(ControlPlaneError):
    """The request was understood but cannot be accepted; every wrong field is named."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in self.errors))


class PreconditionFailedError(ControlPlaneError):
    """``If-Match`` or ``If-None-Match`` does not hold: somebody else wrote in between."""


class UnauthenticatedError(ControlPlaneError):
    """No credential, or none that is known."""


class ForbiddenError(ControlPlaneError):
    """The credential is known, but its role is too weak."""


class TooManyFailuresError(ControlPlaneError):
    """Too many wrong credentials came from this address; ``retry_after_s`` says when to come again."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("Too many wrong credentials from this address.")
        self.retry_after_s = retry_after_s


class DriftError(ControlPlaneError):
    """What is stored contradicts itself; only jobs raise it."""


class AnsweredBeforeError(ControlPlaneError):
    """The same request was answered before under this ``Idempotency-Key``: that answer is given again."""

    def __init__(self, status: int, headers: Mapping[str, str], body: str | None) -> None:
        super().__init__("This request was answered before.")
        self.status = status
        self.headers = dict(headers)
        self.body = body


class UnavailableError(ControlPlaneError):
    """Postgres is away, too slow, or busy; trying again later may help."""

"""What an action asks for, and what it proposes to do: one call of the API, and what will change by it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from control_plane.access.principals import AdminRole
from control_plane.console.api import Answer, Api

Values = Mapping[str, str]
MINUTES = (("15", "15 minutes"), ("60", "1 hour"), ("240", "4 hours"), ("1440", "1 day"), ("10080", "7 days"))
UNTIL_ENDED = ("", "until it is ended by hand")


class Field(NamedTuple):
    """A field of the form; with ``options`` a choice of values and words."""

    name: str
    label: str
    default: str = ""
    options: Sequence[tuple[str, str]] = ()
    required: bool = True
    help: str = ""


class Change(NamedTuple):
    """One thing before and after."""

    what: str
    before: str
    after: str


class Proposal(NamedTuple):
    """A call of the API that was not made yet."""

    method: str
    path: str
    body: dict[str, Any] | None
    summary: str
    changes: Sequence[Change] = ()
    precondition: Mapping[str, str] = {}
    """The header that refuses the call where somebody else wrote since the proposal."""
    query: str = ""
    warning: str = ""
    immediate: bool = True
    """To every node at once, whatever the roll-out policy says."""

    @property
    def keep(self) -> dict[str, str]:
        """Fields that the first step worked out, for the second."""
        expires_at = (self.body or {}).get("expires_at")
        return {} if expires_at is None else {"expires_at": expires_at}


class Action(NamedTuple):
    """Something that can be done, in two steps."""

    title: str
    button: str
    propose: Callable[[Api, Values], Awaitable[Proposal]]
    fields: Sequence[Field] = ()
    hidden: Sequence[str] = ()
    """Fields that a link sets and nobody types."""
    role: AdminRole = "operator"
    danger: bool = False
    about: str = ""
    """What it is about where no hidden field says so."""
    back: str = "/console/"
    """Where to go on afterwards; may name fields as ``{client}``."""


class WrongFieldsError(Exception):
    """Fields cannot be taken as they are."""

    def __init__(self, **errors: str) -> None:
        super().__init__("; ".join(errors.values()))
        self.errors = errors


def unchanged(there: Answer) -> dict[str, str]:
    """The precondition that what was read is as it was, or still not there. Raises :class:`RefusedError`."""
    if there.status == 404:
        return {"If-None-Match": "*"}
    return {"If-Match": there.checked().headers["etag"]}


def expiry_of(values: Values, *, required: bool = False) -> str | None:
    """When it ends: as the first step worked it out, else so many minutes from now; ``None`` for never."""
    if values.get("expires_at"):
        return values["expires_at"]
    minutes = values.get("minutes", "")
    if not minutes and not required:
        return None
    if not minutes.isdecimal() or not 0 < int(minutes) <= 527_040:
        raise WrongFieldsError(minutes="choose for how long")
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=int(minutes))
    return at.isoformat().replace("+00:00", "Z")


def whole(values: Values, name: str, *, required: bool = True) -> int | None:
    """A field that holds a whole number; separators of thousands are taken."""
    text = values.get(name, "").replace(",", "").replace("_", "").replace(" ", "")
    if not text and not required:
        return None
    if not text.isdecimal() or len(text) > 15:
        raise WrongFieldsError(**{name: "must be a whole number"})
    return int(text)


def fraction(values: Values, name: str) -> float:
    """A field that holds a number from 0 to 1."""
    try:
        value = float(values.get(name, ""))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise WrongFieldsError(**{name: "must be a number from 0 to 1"})
    return value


async def rotation(api: Api, path: str, kind: str, values: Values) -> Proposal:
    """A new secret in place of that of the key or token at ``path``, which works on for ``overlap_s``."""
    answer = await api.existing(path)
    name = answer.body["name"] or path.rpartition("/")[2]
    overlap_s = whole(values, "overlap_s") or 0
    return Proposal(
        "POST",
        f"{path}/rotate",
        {"overlap_s": overlap_s},
        "The new secret is shown once, on the next page.",
        [Change(f"{kind} {name}", "works", f"works for {overlap_s:,} s more, beside the new one")],
        precondition=unchanged(answer),
    )


OVERLAP = Field("overlap_s", "The old one works for (seconds)", "86400")


def until(expires_at: str | None) -> str:
    """For a sentence."""
    return (
        "until it is ended by hand" if expires_at is None else f"until {expires_at.replace('T', ' ').rstrip('Z')} UTC"
    )

"""Preconditions and preferences of writes, as RFC 9110 and RFC 7240 have them."""

import pytest

from control_plane.errors import PreconditionFailedError
from control_plane.web.etags import Preconditions, etag_of
from control_plane.web.fields import View
from control_plane.web.waiting import wanted_wait_s


class Thing(View):
    name: str


THING = Thing(name="a")


@pytest.mark.parametrize("field", ["*", etag_of(THING), f'"other", {etag_of(THING)}'])
def test_if_match_holds(field: str) -> None:
    Preconditions(if_match=field).check(THING)
    with pytest.raises(PreconditionFailedError):
        Preconditions(if_match=field).check(None)
    with pytest.raises(PreconditionFailedError):
        Preconditions(if_none_match=field).check(THING)
    Preconditions(if_none_match=field).check(None)


@pytest.mark.parametrize("field", ['"other"', "W/" + etag_of(THING), ""])
def test_if_match_does_not_hold_for_other_or_weak_tags(field: str) -> None:
    with pytest.raises(PreconditionFailedError):
        Preconditions(if_match=field).check(THING)


def test_a_precondition_that_nothing_was_held_against_does_not_hold() -> None:
    Preconditions().require_checked()
    for unasked in (Preconditions(if_match="*"), Preconditions(if_none_match='"other"')):
        with pytest.raises(PreconditionFailedError):
            unasked.require_checked()
    asked = Preconditions(if_match=etag_of(THING))
    asked.check(THING)
    asked.require_checked()


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("wait=5", 5.0),
        ('respond-async, wait="7"', 7.0),
        ("WAIT = 1; foo", 1.0),
        ("wait=9999", 30.0),
        ("wait=-1", None),
        ("await=5", None),
        ("wait", None),
        (None, None),
    ],
)
def test_prefer_wait(field: str | None, seconds: float | None) -> None:
    assert wanted_wait_s(field) == seconds

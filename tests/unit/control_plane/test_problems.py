"""A problem names fields as the caller wrote them."""

import pytest
from pydantic import ValidationError

from control_plane.quotas.schemas import QuotaReplace
from control_plane.web.problems import field_errors


@pytest.mark.parametrize(
    ("shares", "fields", "message"),
    [
        ({"us-east": 2.5}, ["shares.us-east"], "less than or equal to 1"),
        ({"us-east": 0.5}, ["shares"], "sum to 0.5, not to 1"),
        ("equal", ["shares", "shares"], "'auto'"),
        ({"US East": 1.0}, ["shares.US East"], "pattern"),
    ],
)
def test_branches_of_a_union_are_no_part_of_a_fields_name_and_only_the_one_meant_is_spoken_of(
    shares: object, fields: list[str], message: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        QuotaReplace.model_validate({"shares": shares})
    told = field_errors(refused.value.errors())
    assert [error.field for error in told] == fields
    assert message in told[-1].message

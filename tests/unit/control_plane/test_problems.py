"""A problem names fields as the caller wrote them."""

import pytest
from pydantic import ValidationError

from control_plane.quotas.schemas import QuotaReplace
from control_plane.web.problems import field_errors


def test_branches_of_a_union_are_no_part_of_a_fields_name() -> None:
    with pytest.raises(ValidationError) as refused:
        QuotaReplace.model_validate({"shares": {"us-east": 2.5}})
    fields = {error.field for error in field_errors(refused.value.errors())}
    assert fields == {"shares.us-east", "shares"}

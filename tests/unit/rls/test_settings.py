"""What is wrong with a node's settings for the rate limit protocol is said at its start, by name."""

import pytest
from pydantic import ValidationError

from testing.node import settings_for


def test_a_mapping_that_cannot_be_used_stops_the_node(tmp_path):
    file = tmp_path / "rls.toml"
    file.write_text('[domains.edge]\nkey = "colour"\n')
    with pytest.raises(ValidationError, match=r"domains\.edge\.key"):
        settings_for(tmp_path / "snapshot", "redis://nowhere", rls_port=0, rls_mapping_file=file)
    with pytest.raises(ValidationError, match="No such file"):
        settings_for(tmp_path / "snapshot", "redis://nowhere", rls_mapping_file=tmp_path / "none.toml")

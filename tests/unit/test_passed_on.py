"""`tidegate up` passes settings on to the processes that know them, and says which it does not."""

import pytest

from tidegate.stack.passed_on import settings_to_pass_on
from tidegate.stack.progress import StackError


def test_settings_of_the_environment_go_to_who_knows_them() -> None:
    environment = {
        "TIDEGATE_UNKNOWN_KEY": "refuse",
        "TIDEGATE_TRUSTED_HOPS": "1",
        "TIDEGATE_WEBHOOKS_MAY_REACH_PRIVATE": "true",
        "TIDEGATE_LOG_LEVEL": "debug",
        "TIDEGATE_LOAD_SERVERS": "main=http://127.0.0.1:9090",
        "TIDEGATE_ADMIN_TOKEN": "not for them",
        "TIDEGATE_API_KEY": "of tidegate check",
        "HOME": "/root",
    }
    found = settings_to_pass_on(environment, [])
    assert found.node == {
        "TIDEGATE_UNKNOWN_KEY": "refuse", "TIDEGATE_TRUSTED_HOPS": "1", "TIDEGATE_LOG_LEVEL": "debug",
    }  # fmt: skip
    assert found.control_plane == {"TIDEGATE_WEBHOOKS_MAY_REACH_PRIVATE": "true", "TIDEGATE_LOG_LEVEL": "debug"}
    assert found.agent == {"TIDEGATE_LOG_LEVEL": "debug", "TIDEGATE_LOAD_SERVERS": "main=http://127.0.0.1:9090"}
    assert found.ignored == []


def test_what_is_given_counts_more_and_what_is_ignored_is_said() -> None:
    environment = {"TIDEGATE_UNKNOWN_KEY": "refuse", "TIDEGATE_PORT": "1", "TIDEGATE_UNKNOWN_KEYS": "refuse"}
    found = settings_to_pass_on(environment, ["unknown_key=anonymous", "TIDEGATE_DRAIN_S=2", "TRUST=token"])
    assert found.node == {
        "TIDEGATE_UNKNOWN_KEY": "anonymous", "TIDEGATE_DRAIN_S": "2", "TIDEGATE_TRUST": "token",
    }  # fmt: skip
    assert found.agent == {}
    assert [line.split()[0] for line in found.ignored] == ["TIDEGATE_PORT", "TIDEGATE_UNKNOWN_KEYS"]
    assert "sets it itself" in found.ignored[0]
    assert "no such setting" in found.ignored[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [("UNKNOWN_KEY", "NAME=VALUE"), ("PORT=1", "itself"), ("NO_SUCH=1", "no setting TIDEGATE_NO_SUCH")],
)
def test_what_cannot_be_set_is_refused(given: str, said: str) -> None:
    with pytest.raises(StackError, match=said):
        settings_to_pass_on({}, [given])

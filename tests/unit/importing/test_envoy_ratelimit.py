"""Configurations of envoyproxy/ratelimit, one for each thing that its README explains, written anew."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from data_plane.rls.mapping import RlsMapping
from tests.unit.importing.running import Imported, import_file, refused
from tidegate.cli import app


class Entry(NamedTuple):
    key: str
    value: str


@pytest.fixture
def imported(tmp_path: Path):
    def run(*texts: str) -> Imported:
        files = [tmp_path / f"file-{nth}.yaml" for nth in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_text(text)
        return import_file("envoy-ratelimit", *files)

    return run


def mapping(found: Imported, tmp_path: Path) -> RlsMapping:
    """The mapping file that the comments hold, as a node reads it."""
    lines = [line[4:] for line in found.comments.splitlines() if line.startswith(("#   [domains", '#   "'))]
    file = tmp_path / "mapping.toml"
    file.write_text("\n".join(lines))
    assert tomllib.loads(file.read_text())
    return RlsMapping.from_file(file)


def entries(*pairs: tuple[str, str]) -> Iterable[Entry]:
    return [Entry(key, value) for key, value in pairs]


def test_values_of_one_key_are_limits_of_their_own(imported, tmp_path):
    found = imported("""
domain: stores
descriptors:
  - { key: database, value: users, rate_limit: { unit: second, requests_per_unit: 500 } }
  - { key: database, value: Default, rate_limit: { unit: MINUTE, requests_per_unit: 600 } }
""")
    assert found.content == {
        "version": 1,
        "limits": {
            "database-users": {
                "limit": "500/s", "by": "attribute:database", "algorithm": "fixed_window",
                "match": {"attributes": {"database": "users"}},
            },
            "database-default": {
                "limit": "600/min", "by": "attribute:database", "algorithm": "fixed_window",
                "match": {"attributes": {"database": "Default"}},
            },
        },
    }  # fmt: skip
    assert found.remarks == ""
    assert "rls_shape" not in found.comments
    check = mapping(found, tmp_path).check("stores", entries(("database", "users")), 1)
    assert check.attributes == {"database": "users"}


def test_descriptors_of_several_shapes_are_told_apart_by_what_envoy_sends(imported, tmp_path):
    found = imported("""
domain: messaging
descriptors:
  - key: message_type
    value: marketing
    descriptors:
      - { key: to_number, rate_limit: { unit: day, requests_per_unit: 5 } }
  - { key: to_number, rate_limit: { unit: day, requests_per_unit: 100 } }
""")
    limits = found.content["limits"]
    assert limits["message_type-marketing.to_number"] == {
        "limit": "5/day", "by": "attribute:message_type+attribute:to_number", "algorithm": "fixed_window",
        "match": {"attributes": {"rls_shape": "messaging.message_type.to_number", "message_type": "marketing"}},
    }  # fmt: skip
    assert limits["to_number"]["match"] == {"attributes": {"rls_shape": "messaging.to_number"}}
    wanted = '- generic_key: { descriptor_key: rls_shape, descriptor_value: "messaging.to_number" }'
    assert wanted in found.comments
    sent = entries(("to_number", "2061"), ("rls_shape", "messaging.to_number"))
    assert mapping(found, tmp_path).check("messaging", sent, 1).attributes["rls_shape"] == "messaging.to_number"


def test_an_address_is_an_address_and_one_that_is_banned_is_a_block(imported, tmp_path):
    found = imported("""
domain: edge
descriptors:
  - { key: remote_address, rate_limit: { unit: second, requests_per_unit: 10 } }
  - { key: remote_address, value: 203.0.113.9, rate_limit: { unit: second, requests_per_unit: 0 } }
  - { key: remote_address, value: 203.0.113.8, rate_limit: { unit: second, requests_per_unit: 50 } }
""")
    assert found.content["limits"] == {
        "remote_address": {"limit": "10/s", "by": "ip", "algorithm": "fixed_window"},
    }
    assert "remote_address=203.0.113.9  one address: block it instead (docs/usage.md)" in found.remarks
    assert "remote_address=203.0.113.8  one address: a limit matches no address" in found.remarks
    assert "# left out: edge: remote_address=203.0.113.9: one address" in found.comments
    assert mapping(found, tmp_path).check("edge", entries(("remote_address", "192.0.2.1")), 1).ip == "192.0.2.1"


@pytest.mark.parametrize(
    ("unit", "written"),
    [
        ("second", "7/s"), ("minute", "7/min"), ("hour", "7/h"), ("day", "7/day"), ("week", "7/week"),
        ("month", "7/30day"), ("year", "7/365day"),
    ],
)  # fmt: skip
def test_every_unit_is_the_window_that_it_was(imported, unit, written):
    rule = f"{{ key: a, rate_limit: {{ unit: {unit}, requests_per_unit: 7 }} }}"
    found = imported(f"domain: d\ndescriptors: [{rule}]\n")
    assert found.content["limits"]["a"]["limit"] == written


def test_unlimited_and_whitelisted_values_are_left_out_and_said_where_they_would_be_limited(imported):
    found = imported("""
domain: internal
descriptors:
  - { key: ldap, rate_limit: { unlimited: true } }
  - { key: azure, rate_limit: { unit: minute, requests_per_unit: 100 } }
  - { key: azure, value: monitor, rate_limit: { unlimited: true } }
  - { key: azure, value: probe }
""")
    assert set(found.content["limits"]) == {"azure"}
    assert "internal: azure=monitor" in found.remarks
    assert "internal: azure=probe" in found.remarks
    assert "ldap" not in found.remarks


def test_a_value_that_may_do_more_than_its_default_is_remarked_on_and_one_that_may_do_less_is_not(imported):
    found = imported("""
domain: d
descriptors:
  - { key: user, rate_limit: { unit: minute, requests_per_unit: 10 } }
  - { key: user, value: big, rate_limit: { unit: minute, requests_per_unit: 20 } }
  - { key: user, value: small, rate_limit: { unit: minute, requests_per_unit: 1 } }
""")
    assert set(found.content["limits"]) == {"user", "user-big", "user-small"}
    assert (
        "d: user=big  counts beside user, which in Envoy it stands in for: the smaller of both holds" in found.remarks
    )
    assert "small" not in found.remarks.replace("smaller", "")


def test_shadow_mode_is_kept_and_what_has_no_counterpart_is_named(imported):
    found = imported("""
domain: d
descriptors:
  - key: service
    detailed_metric: true
    descriptors:
      - key: user
        value: a
        shadow_mode: true
        rate_limit: { name: specific, unit: second, requests_per_unit: 10 }
      - key: user
        value: b
        share_threshold: true
        rate_limit: { unit: second, requests_per_unit: 20, replaces: [{ name: specific }] }
  - { key: path, value: /v1/*, rate_limit: { unit: second, requests_per_unit: 1 } }
""")
    assert found.content["limits"]["specific"]["shadow"] is True
    assert "shadow" not in found.content["limits"]["service.user-b"]
    for place, word in (
        ("d: service ", "detailed_metric"), ("d: service > user=b", "replaces"),
        ("d: service > user=b", "share_threshold"),
        ("d: path=/v1/*", "a limit matches whole values"),
    ):  # fmt: skip
        assert any(place in line and word in line for line in found.remarks.splitlines()), (place, word, found.remarks)
    assert len(found.content["limits"]) == 2


def test_several_files_are_one_configuration_and_names_never_meet(imported, tmp_path):
    rule = "descriptors: [{ key: Tenant ID, rate_limit: { unit: second, requests_per_unit: 1 } }]"
    found = imported(f"domain: one\n{rule}\n", f"domain: two\n{rule}\n")
    assert list(found.content["limits"]) == ["tenant-id", "tenant-id-2"]
    shapes = [limit["match"]["attributes"]["rls_shape"] for limit in found.content["limits"].values()]
    assert shapes == ["one.Tenant ID", "two.Tenant ID"]
    assert mapping(found, tmp_path).check("two", entries(("Tenant ID", "t")), 1).attributes == {"tenant-id": "t"}


def test_what_is_written_goes_to_a_file_and_remarks_do_not(tmp_path):
    source, out = tmp_path / "in.yaml", tmp_path / "out.yaml"
    source.write_text("domain: d\ndescriptors: [{ key: a, rate_limit: { unit: second, requests_per_unit: 1 } }]\n")
    found = CliRunner().invoke(app, ["import", "envoy-ratelimit", str(source), "-o", str(out)])
    assert (found.exit_code, found.stdout) == (0, "")
    assert "version: 1" in out.read_text()


def nested(depth: int) -> str:
    return "domain: d\ndescriptors: " + "[{ key: a, descriptors: " * depth + "[]" + "}]" * depth + "\n"


RULES = "".join(
    f"  - {{ key: a, value: v{n}, rate_limit: {{ unit: day, requests_per_unit: 1 }} }}\n" for n in range(101)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be a mapping"),
        ("- a\n", "must be a mapping"),
        ("descriptors: []\n", "domain: must be given"),
        ("domain: d\ndescriptors: 3\n", "descriptors: must be a list"),
        ("domain: d\ndescriptors: [3]\n", "descriptors[0]: must be a mapping"),
        ("domain: d\ndescriptors: [{ value: a }]\n", "descriptors[0].key: must be given"),
        ("domain: d\ndescriptors: [{ key: a }, { key: a }]\n", "descriptors[1]: a stands here twice"),
        ("domain: d\ndescriptors: [{ key: a, rate_limit: { unit: eon, requests_per_unit: 1 } }]\n", "'eon' is none of"),
        ("domain: d\ndescriptors: [{ key: a, rate_limit: { unit: day, requests_per_unit: -1 } }]\n", "a whole number"),
        ("domain: d\ndescriptors: [{ key: a, rate_limit: { unit: day, requests_per_unit: x } }]\n", "a whole number"),
        ("domain: d\ndomain: e\n", "found duplicate key"),
        (nested(40), "nested more than 16 deep"),
        (nested(5_000), "is nested too deeply"),
        ("domain: d\na: &a [x, x, x, x, x, x, x, x]\n" + "".join(
            f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
        ), "its aliases (*) make far more of it"),
        ("domain: d\ndescriptors:\n" + RULES, "101 descriptors have limits: a file takes 100"),
    ],
)  # fmt: skip
def test_hostile_and_wrong_files_are_refused_by_name(tmp_path, text, said):
    file = tmp_path / "ratelimit.yaml"
    file.write_text(text)
    answer = refused("envoy-ratelimit", file)
    assert "ratelimit.yaml" in answer or said.startswith("101")
    assert said in answer


def test_a_huge_file_is_not_read(tmp_path):
    file = tmp_path / "huge.yaml"
    with file.open("wb") as huge:
        huge.truncate(2**34)
    assert "is larger than 16 MiB" in refused("envoy-ratelimit", file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "No such file" in refused("envoy-ratelimit", tmp_path / "none.yaml")


def test_comments_cannot_be_left_by_what_a_file_says(imported):
    found = imported("""
domain: "d\\nversion: 2"
descriptors:
  - { key: "a\\nlimits: {}", value: "x*\\u2028limits: {}", rate_limit: { unit: second, requests_per_unit: 1 } }
  - { key: b, rate_limit: { unit: second, requests_per_unit: 1 } }
""")
    assert found.content["version"] == 1
    assert set(found.content["limits"]) == {"b"}

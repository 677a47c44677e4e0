"""What descriptors mean, and who is to blame for what they do not."""

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from data_plane.rls.mapping import InvalidMappingError, MalformedError, RlsMapping, UnmappedError

EDGE = RlsMapping({"edge": {"remote_address": "ip", "key": "api_key", "tenant": "attribute:tenant", "note": "ignore"}})


class Entry(NamedTuple):
    key: str
    value: str


def check(mapping, domain="edge", cost=1, **entries):
    return mapping.check(domain, [Entry(key, value) for key, value in entries.items()], cost)


def test_entries_become_members_and_attributes():
    asked = check(EDGE, remote_address="203.0.113.7", key="tg_x", tenant="t1", note="whatever", cost=3)
    assert (asked.ip, asked.api_key, asked.attributes, asked.cost) == ("203.0.113.7", "tg_x", {"tenant": "t1"}, 3)


def test_the_mapping_of_the_page_fits_the_example_beside_it():
    pages = Path(__file__).parents[3] / "docs/gateways"
    page = (pages / "envoy-ratelimit.md").read_text()
    written = re.search(r"```toml\n(.+?)```", page, re.DOTALL)
    mapping = RlsMapping(tomllib.loads(written[1])["domains"])
    sent = re.findall(r"descriptor_key: ([a-z_-]+)", (pages / "envoy/ratelimit.yaml").read_text())
    assert {"api_key", "authorization", "method", "path"} == set(sent)
    asked = check(mapping, api_key="k", authorization="Bearer k", remote_address="::1", method="GET", path="/a")
    assert (asked.api_key, asked.ip, asked.method, asked.path) == ("k", "::1", "GET", "/a")


def test_without_a_file_entries_are_called_what_they_mean():
    asked = check(RlsMapping(), "any", remote_address="::1", generic_key="export", api_key="k")
    assert (asked.ip, asked.endpoint, asked.api_key) == ("::1", "export", "k")


@pytest.mark.parametrize(
    ("domain", "entries"),
    [("elsewhere", {"key": "k"}), ("edge", {"generic_key": "x"}), ("edge", {"api_key": "k"})],
)
def test_what_the_operator_did_not_map_fails_by_name(domain, entries):
    with pytest.raises(UnmappedError) as failed:
        check(EDGE, domain, **entries)
    assert domain in str(failed.value)


def test_an_empty_key_is_none():
    assert check(RlsMapping(), api_key="").api_key is None


def test_a_key_comes_from_its_own_header_or_after_bearer():
    assert check(RlsMapping(), authorization="Bearer k").api_key == "k"
    assert check(RlsMapping(), authorization="Bearer k", api_key="k").api_key == "k"
    assert check(RlsMapping(), authorization="Basic eDp5").api_key is None


@pytest.mark.parametrize("entries", [{"api_key": "a,b"}, {"api_key": "a", "authorization": "Bearer b"}])
def test_two_different_keys_are_a_refusal(entries):
    with pytest.raises(MalformedError, match="more than one"):
        check(RlsMapping(), **entries)


@pytest.mark.parametrize("entries", [{"tenant": ""}, {"key": "a\0b"}, {"tenant": "é" * 65}, {"key": "k" * 9_000}])
def test_values_that_end_clients_may_have_caused_are_refusals(entries):
    with pytest.raises(MalformedError):
        check(EDGE, **entries)


@pytest.mark.parametrize("entries", [{"client": "a", "api_key": "k"}, {"endpoint": "a", "path": "/"}])
def test_an_end_client_cannot_make_a_call_fail_by_sending_what_excludes_each_other(entries):
    with pytest.raises(MalformedError, match="stands in"):
        check(RlsMapping(), **entries)


def test_nor_by_two_headers_of_one_meaning():
    twice = RlsMapping({"edge": {"a": "attribute:t", "b": "attribute:t"}})
    with pytest.raises(MalformedError, match="twice"):
        check(twice, a="1", b="2")


def test_a_cost_beyond_measure_is_the_highest():
    assert check(EDGE, key="k", cost=2**63).cost == 10**12


def test_a_file_is_read(tmp_path):
    file = tmp_path / "rls.toml"
    file.write_text('[domains.edge]\nremote_address = "ip"\n"x-tenant" = "attribute:tenant"\n')
    asked = RlsMapping.from_file(file).check("edge", [Entry("x-tenant", "t")], 1)
    assert asked.attributes == {"tenant": "t"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "domains"),
        ("[domains]", "domains"),
        ("[other]\na = 1", "domains"),
        ("[domains.edge]", "domains.edge"),
        ('[domains.edge]\nkey = "colour"', "domains.edge.key"),
        ('[domains.edge]\nkey = "attribute:"', "domains.edge.key"),
        ("[domains.edge]\nkey = 7", "domains.edge.key"),
        ("not toml", "rls.toml"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(tmp_path, text, named):
    file = tmp_path / "rls.toml"
    file.write_text(text)
    with pytest.raises(InvalidMappingError, match=named.replace(".", r"\.")):
        RlsMapping.from_file(file)

"""Blocks and enforcement overrides on a node: who is meant, for how long, and what else stays as it was."""

import gc
import ipaddress
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.config.blocks import Blocks
from data_plane.config.index import InvalidConfigError, RuleIndex
from data_plane.config.routes import UNMATCHED
from tidegate.contract.blocks import Block, EnforcementOverride
from tidegate.contract.config import Change, Client, Plan
from tidegate.contract.limits import LimitRule

NOW_S = 1_000.0


def blocks(*networks: str, expires_at: float | None = None) -> Blocks:
    return Blocks({name: Block(block=name, network=name, expires_at=expires_at) for name in networks})


@given(
    networks=st.lists(st.ip_addresses().flatmap(lambda ip: st.tuples(st.just(ip), st.integers(0, ip.max_prefixlen)))),
    address=st.ip_addresses(),
)
def test_an_address_is_blocked_when_a_network_holds_it(networks, address) -> None:
    wanted = [ipaddress.ip_network(f"{ip}/{prefix}", strict=False) for ip, prefix in networks]
    found = blocks(*(str(network) for network in wanted)).of_address(str(address), NOW_S)
    mapped = getattr(address, "ipv4_mapped", None) or address
    assert (found is not None) == any(
        mapped in network or (network.prefixlen < 96 and address in network and mapped is address)
        for network in (_unmapped(network) for network in wanted)
    )


def _unmapped(network):
    if network.version == 6 and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return ipaddress.ip_network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


def test_ends_at_its_time_and_the_longest_block_of_a_subject_counts() -> None:
    found = Blocks(
        {
            "short": Block(block="short", client="acme", expires_at=NOW_S + 1),
            "long": Block(block="long", client="acme", expires_at=NOW_S + 5, reason_class="abuse"),
            "key": Block(block="key", key_id="key_1"),
            "export": Block(block="export", endpoint="export", reason_class="legal"),
        }
    )
    assert found.of_caller("acme", "", NOW_S + 4) is not None
    assert found.of_caller("acme", "", NOW_S + 5) is None
    assert found.of_caller("zeta", "key_1", NOW_S) is not None
    assert found.of_caller("zeta", "key_2", NOW_S) is None
    export = found.of_endpoint("export", NOW_S)
    assert export is not None
    assert export.reason_class == "legal"
    assert (found.in_force(NOW_S), found.in_force(NOW_S + 9)) == (4, 2)
    assert found.of_address("1.2.3.4", NOW_S) is None


def test_what_is_no_address_is_nobodys_business_here() -> None:
    for text in ("", "nowhere", "1.2.3", "::1%eth0", "1.2.3.4\0", "٣.1.1.1"):
        assert blocks("0.0.0.0/0", "::/0").of_address(text, NOW_S) is None


def test_a_look_costs_as_much_with_ten_thousand_addresses_as_with_ten() -> None:
    def lines_run(found: Blocks) -> int:
        run = 0

        def count(frame: object, event: str, _: object) -> object:
            nonlocal run
            run += event == "line"
            return count

        gc.disable()  # a collection calls finalizers of other tests, which would be counted
        sys.settrace(count)
        try:
            found.of_address("203.0.113.7", NOW_S)
        finally:
            sys.settrace(None)
            gc.enable()
        return run

    few, many = (
        blocks(*(str(ipaddress.ip_address(number * 7919)) for number in range(count)), "10.0.0.0/8")
        for count in (10, 10_000)
    )
    assert 0 < lines_run(many) <= lines_run(few)


def rule(name: str, *, shadow: bool = False, id: int = 1) -> LimitRule:
    return LimitRule(id=id, name=name, limit=10, window_us=3_600_000_000, shadow=shadow)


def index_with(*overrides: EnforcementOverride) -> RuleIndex:
    documents = [
        ("plan", "free", Plan(plan="free", limits=(rule("hourly"), rule("watched", shadow=True, id=2)))),
        ("limit", "hourly", rule("hourly", id=3)),
        ("client", "acme", Client(client="acme", plan="free")),
        *(("enforcement", override.target, override) for override in overrides),
    ]
    return RuleIndex.empty("r").with_changes(
        Change(kind, id, msgspec.Raw(msgspec.json.encode(body))) for kind, id, body in documents
    )


def shadows(index: RuleIndex) -> list[bool]:
    limit_set = index.book.limit_set("free", None, UNMATCHED, "GET", NOW_S, sites=False)
    return [limit.rule.shadow for limit in limit_set.limits]


def test_enforcement_overrides_decide_shadow_and_that_of_one_limit_is_the_stronger() -> None:
    assert shadows(index_with()) == [False, True, False]
    assert shadows(index_with(EnforcementOverride(target="*", mode="shadow"))) == [True, True, True]
    assert shadows(index_with(EnforcementOverride(target="*", mode="enforce"))) == [False, False, False]
    assert shadows(index_with(EnforcementOverride(target="free/hourly", mode="shadow"))) == [True, True, False]
    assert shadows(index_with(EnforcementOverride(target="_/hourly", mode="shadow"))) == [False, True, True]
    both = index_with(
        EnforcementOverride(target="*", mode="shadow"), EnforcementOverride(target="free/watched", mode="enforce")
    )
    assert shadows(both) == [True, False, True]


def test_an_ended_switch_is_taken_out_and_nothing_else_changes() -> None:
    index = index_with(
        EnforcementOverride(target="*", mode="shadow", expires_at=NOW_S),
        EnforcementOverride(target="free/watched", mode="enforce"),
    )
    assert index.without_ended_overrides(NOW_S - 1) is index
    ended = index.without_ended_overrides(NOW_S)
    assert shadows(ended) == [False, False, False]
    acme = ended.clients.get("acme")
    assert acme is not None
    assert acme.plan == "free"
    assert ended.without_ended_overrides(NOW_S + 10**9) is ended


def test_a_block_comes_and_goes_without_touching_the_rulebook() -> None:
    index = index_with()
    blocked = index.with_changes([Change("block", "b", msgspec.Raw(b'{"block":"b","client":"acme"}'))])
    assert blocked.book is index.book
    assert blocked.blocks is not None
    kept = blocked.with_changes([Change("client", "zeta", msgspec.Raw(b'{"client":"zeta","plan":"free"}'))])
    assert kept.blocks is blocked.blocks
    assert kept.with_changes([Change("block", "b", None)]).blocks is None


def test_a_block_that_means_nothing_is_refused_by_name() -> None:
    for body in (b'{"block":"b"}', b'{"block":"b","network":"1.2.3.4/99"}', b'{"block":"b","client":"a","key_id":"k"}'):
        with pytest.raises(InvalidConfigError, match="block 'b'"):
            RuleIndex.empty("r").with_changes([Change("block", "b", msgspec.Raw(body))])

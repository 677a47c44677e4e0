import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.store.subjects import (
    Address,
    InvalidAddressError,
    address_of,
    limit_code,
    limit_of_key,
    ordered_dimensions,
    part,
    tag,
)


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("203.0.113.42", "203.0.113.42"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::1", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.42", "203.0.113.42"),
    ],
)
def test_an_address_has_one_subject_however_it_is_written(text, subject):
    assert address_of(text).subject == subject


def test_an_ipv6_address_counts_by_its_site_too_and_a_full_store_coarsens():
    assert address_of("2001:db8:1:2::1") == Address("2001:db8:1:2::/64", "2001:db8:1::/48")
    assert address_of("203.0.113.42").site is None
    assert address_of("2001:db8:1:2::1", coarse=True) == Address("2001:db8:1::/48", None)
    assert address_of("203.0.113.42", coarse=True) == Address("203.0.113.0/24", None)


@pytest.mark.parametrize("text", ["", "203.0.113", "203.0.113.042", "1.2.3.4.5", "fe80::1%eth0", "x", "1.2.3.4\0", "é"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidAddressError):
        address_of(text)


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_two_pairs_of_values_share_a_key_only_when_they_are_equal(a, b, c, d):
    def key(one, two):
        return "|".join([part("attribute:x", one), part("attribute:y", two)])

    assert (key(a, b) == key(c, d)) == ((a, b) == (c, d))


def test_a_scope_means_the_same_in_any_order_and_its_tag_is_the_client():
    assert ordered_dimensions("endpoint+client") == ordered_dimensions("client+endpoint") == ["client", "endpoint"]


@given(st.text(max_size=8), st.text(max_size=8))
def test_a_client_is_never_taken_for_another_kind_of_subject(client, value):
    parts = {part("client", client), part("ip", value), part("endpoint", value), part("attribute:x", value)}
    assert len(parts) == 4


@given(st.integers(0, 2**62), st.text(max_size=8), st.sampled_from(["", ".7", "|e:get-user", "|e:get-user.7"]))
def test_a_key_leads_back_to_its_limit(limit_id, client, rest):
    assert limit_of_key((tag("client", client) + limit_code(limit_id) + rest).encode()) == limit_id


@pytest.mark.parametrize("key", [b"tg:dirty", b"{acme}", b"{acme}A", b"{acme}1!", b"acme1", b""])
def test_other_keys_lead_to_no_limit(key):
    assert limit_of_key(key) == -1

"""Which requests share a counter, by the keys of a limit's counters."""

from data_plane.config.counter_keys import key_builder, subject_of
from data_plane.config.routes import UNMATCHED
from data_plane.store.subjects import address_of
from testing.node import rule
from tidegate.contract.config import Client


def key_of(scope, client, ip, attributes):
    subject = subject_of(Client(client=client, plan="p"), address_of(ip, coarse=False), attributes)
    return key_builder(rule(1, "by-user", 10, scope=scope), UNMATCHED).key(subject)


def test_all_requests_without_an_attribute_are_one_subject():
    nobodys = key_of("attribute:user", "acme", "192.0.2.1", {})
    assert nobodys == key_of("attribute:user", "globex", "192.0.2.2", {"tenant": "t"})
    assert nobodys == key_of("attribute:user", "acme", "192.0.2.1", {"user": ""})
    assert nobodys != key_of("attribute:user", "acme", "192.0.2.1", {"user": "a"})


def test_beside_another_dimension_they_are_one_subject_for_each_of_its_values():
    acmes = key_of("client+attribute:user", "acme", "192.0.2.1", {})
    assert acmes == key_of("client+attribute:user", "acme", "192.0.2.2", {})
    assert acmes != key_of("client+attribute:user", "globex", "192.0.2.1", {})

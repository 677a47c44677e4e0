import asyncio

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_plane.config.index import ConfigSet, InvalidConfigError
from data_plane.config.snapshots import SnapshotFile, UnreadableSnapshotError
from data_plane.config.stream import ConfigService, OutOfStepError, Snapshot
from tidegate.contract.config import Begin, Change, Client, Commit, Documents, Heartbeat, HeldBack, Plan, signed_head
from tidegate.contract.limits import LimitRule

KEY = Ed25519PrivateKey.generate()


def document(kind, id, body):
    return Change(kind, id, None if body is None else msgspec.Raw(msgspec.json.encode(body)))


def plan(limit=100, **changes):
    rule = LimitRule(id=1, name="hourly", limit=limit, window_us=3_600_000_000, **changes)
    return document("plan", "free", Plan(plan="free", limits=(rule,)))


ACME = document("client", "acme", Client(client="acme", plan="free"))


class Rollout:
    """The control plane's end of the stream, and the node's service at the other."""

    def __init__(self):
        self.config = ConfigSet.empty()
        self.applied = []
        self.service = ConfigService("n1", "us-east", KEY.public_key(), lambda *new: self.applied.append(new))

    def push(self, revision, changes, *, base=None, key=KEY, digest=None, held_back=None):
        self.config = (ConfigSet.empty() if base is None else self.config).with_changes(changes)
        digest = digest or self.config.digest
        self.service.receive(Begin(base=base, revision=revision, held_back=held_back))
        self.service.receive(Documents(changes=tuple(changes)))
        signature = key.sign(signed_head(revision, digest)).hex()
        return self.service.receive(Commit(revision=revision, digest=digest, signature=signature))


@pytest.fixture
def rollout():
    return Rollout()


def test_an_ack_means_applied(rollout):
    ack = rollout.push(1, [plan(), ACME])
    assert (ack.revision, ack.error, ack.digest) == (1, None, rollout.config.digest)
    index, snapshot = rollout.applied[-1]
    assert index.clients.get("acme").client.plan == "free"
    assert (snapshot.revision, rollout.service.revision) == (1, 1)


def test_a_delta_changes_what_it_names_and_keeps_the_rest(rollout):
    rollout.push(1, [plan(), ACME, document("client", "globex", Client(client="globex", plan="free"))])
    ack = rollout.push(2, [document("client", "globex", None)], base=1)
    assert ack.error is None
    index, _ = rollout.applied[-1]
    assert index.clients.get("globex") is None
    assert index.clients.get("acme") is not None
    assert index.book is rollout.applied[0][0].book


def test_a_node_says_no_revision_of_which_a_roll_out_holds_something_back(rollout, tmp_path):
    rollout.push(1, [plan(), ACME])
    assert (rollout.service.revision, rollout.service.whole_revision, rollout.service.held_back) == (1, 1, None)
    lacks = HeldBack(rollout=2, whole=1)
    rollout.push(2, [], base=1, held_back=lacks)
    assert (rollout.service.revision, rollout.service.whole_revision) == (2, 1)
    file = SnapshotFile(tmp_path / "snapshot")
    file.save_soon(rollout.applied[-1][1])
    asyncio.run(file.flush())
    assert SnapshotFile(tmp_path / "snapshot").load().held_back == lacks
    rollout.push(3, [plan(limit=5)], base=2)
    assert (rollout.service.whole_revision, rollout.service.held_back) == (3, None)


def test_a_limit_that_cannot_be_enforced_is_refused_and_the_last_good_config_stays(rollout):
    rollout.push(1, [plan(), ACME])
    nack = rollout.push(2, [plan(burst=5)], base=1)
    assert "burst" in nack.error
    assert (rollout.service.revision, len(rollout.applied)) == (1, 1)
    assert rollout.service.refused == nack


def test_a_config_signed_by_somebody_else_is_refused(rollout):
    nack = rollout.push(1, [plan()], key=Ed25519PrivateKey.generate())
    assert "signed" in nack.error
    assert rollout.applied == []


def test_a_digest_that_does_not_fit_the_documents_starts_the_stream_again(rollout):
    with pytest.raises(OutOfStepError):
        rollout.push(1, [plan()], digest="00" * 32)
    assert rollout.applied == []


def test_a_delta_on_another_revision_starts_the_stream_again(rollout):
    rollout.push(1, [plan()])
    with pytest.raises(OutOfStepError):
        rollout.service.receive(Begin(base=7, revision=8))


def test_a_heartbeat_with_other_content_starts_the_stream_again(rollout):
    rollout.push(1, [plan()])
    assert rollout.service.receive(Heartbeat(revision=1, digest=rollout.config.digest)) is None
    with pytest.raises(OutOfStepError):
        rollout.service.receive(Heartbeat(revision=1, digest="00" * 32))


def test_a_heartbeat_of_an_earlier_revision_starts_the_stream_again(rollout):
    """The store kept what a control plane had that was restored since: what it names now is meant."""
    rollout.push(2, [plan()])
    with pytest.raises(OutOfStepError):
        rollout.service.receive(Heartbeat(revision=1, digest="00" * 32))


def test_an_earlier_revision_that_was_refused_is_not_asked_for_again(rollout):
    rollout.push(2, [plan()])
    nack = rollout.push(1, [plan(200)], key=Ed25519PrivateKey.generate())
    assert "signed" in nack.error
    assert rollout.service.receive(Heartbeat(revision=1, digest=nack.digest)) is None


def test_kinds_and_members_of_a_newer_version_are_carried(rollout):
    newer = document("client", "acme", {"client": "acme", "plan": "free", "colour": "blue"})
    ack = rollout.push(1, [plan(), newer, document("colour", "blue", {"x": 1})])
    assert ack.error is None


async def test_a_snapshot_file_restores_what_was_in_force(rollout, tmp_path):
    rollout.push(3, [plan(), ACME])
    file = SnapshotFile(tmp_path / "snapshot")
    file.save_soon(rollout.applied[-1][1])
    await file.flush()
    assert (tmp_path / "snapshot").stat().st_mode & 0o777 == 0o600

    restarted = Rollout()
    restarted.service.restore(SnapshotFile(tmp_path / "snapshot").load())
    assert (restarted.service.revision, restarted.service.digest) == (3, rollout.config.digest)
    assert restarted.applied[-1][0].clients.get("acme") is not None


async def test_a_snapshot_file_that_was_tampered_with_is_refused(rollout, tmp_path):
    rollout.push(3, [plan(limit=100)])
    signed = rollout.applied[-1][1]
    forged = Snapshot(signed.revision, signed.signature, signed.config.with_changes([plan(limit=100_000)]))
    file = SnapshotFile(tmp_path / "snapshot")
    file.save_soon(forged)
    await file.flush()
    with pytest.raises(InvalidConfigError):
        Rollout().service.restore(file.load())
    (tmp_path / "snapshot").write_bytes(b"\x93nonsense")
    with pytest.raises(UnreadableSnapshotError):
        file.load()
    assert SnapshotFile(tmp_path / "absent").load() is None


def test_what_the_control_plane_wants_is_known_whether_or_not_it_is_in_force(rollout):
    assert rollout.service.wanted_revision == 0
    rollout.push(1, [plan(), ACME])
    rollout.service.receive(Heartbeat(revision=1, digest=rollout.config.digest))
    assert (rollout.service.wanted_revision, rollout.service.revision) == (1, 1)
    refused = rollout.push(2, [plan(200)], base=1, key=Ed25519PrivateKey.generate())
    assert refused.error is not None
    assert (rollout.service.wanted_revision, rollout.service.revision) == (2, 1)

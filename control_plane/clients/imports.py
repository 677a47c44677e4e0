"""Bulk imports, line by line (NDJSON): a part at a time, so that memory stays small whatever the length.

Each part of 2,000 lines is a write of its own. Whoever is interrupted sends the same lines again: what is there already
changes nothing.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy import text

from contract.credentials import secret_sha256
from control_plane.access.secret_columns import shown_prefix
from control_plane.clients import bulk
from control_plane.clients.bulk import ClientWish
from control_plane.clients.documents import key_document
from control_plane.clients.keys import looks_random, view
from control_plane.clients.models import KeyRow
from control_plane.clients.schemas import ClientCreate, ImportResult, KeyImport, LineError
from control_plane.errors import FieldError, InvalidError
from control_plane.rollout.changes import Change
from control_plane.rollout.write import ConfigWrite
from control_plane.web.problems import field_errors

LINES_A_WRITE = 2_000
MAX_LINE_BYTES = 64 * 1024
SHOWN_ERRORS = 100
Line = TypeVar("Line", bound=BaseModel)
_KEYS = text("""
SELECT sha256, client FROM keys WHERE sha256 = ANY(CAST(:hashes AS text[]))
""")
_CLIENTS = text("SELECT client FROM clients WHERE client = ANY(CAST(:names AS text[]))")
_PUT_KEYS = text("""
INSERT INTO keys (key_id, client, sha256, prefix, name, expires_at)
SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:clients AS text[]), CAST(:hashes AS text[]),
                     CAST(:prefixes AS text[]), CAST(:names AS text[]), CAST(:ends AS timestamptz[]))
RETURNING key_id, created_at
""")


class Numbered(NamedTuple, Generic[Line]):
    """A line that could be read, and its number from 1."""

    number: int
    line: Line


class Tally:
    """What became of the lines so far."""

    def __init__(self) -> None:
        self.lines = self.made = self.changed = self.unchanged = self.refused = 0
        self.errors: list[LineError] = []

    def refuse(self, number: int, faults: Sequence[FieldError]) -> None:
        """Note a line that is not taken."""
        self.refused += 1
        for fault in faults:
            if len(self.errors) < SHOWN_ERRORS:
                self.errors.append(LineError(line=number, field=fault.field, message=fault.message))

    def result(self, revision: int) -> ImportResult:
        """The answer."""
        return ImportResult(
            revision=revision,
            lines=self.lines,
            made=self.made,
            changed=self.changed,
            unchanged=self.unchanged,
            refused=self.refused,
            errors=self.errors,
        )


Store = Callable[[ConfigWrite, Sequence[Numbered[Any]], Tally], Awaitable[None]]


async def run(body: AsyncIterator[bytes], kind: type[BaseModel], store: Store, change: Change) -> ImportResult:
    """Read lines of ``kind`` and ``store`` them part by part."""
    adapter = TypeAdapter(kind)
    tally = Tally()
    part: list[Numbered[Any]] = []
    async for number, raw in _lines(body):
        if not raw.strip():
            continue
        tally.lines += 1
        try:
            part.append(Numbered(number, adapter.validate_json(raw)))
        except ValidationError as error:
            tally.refuse(number, field_errors(error.errors(include_input=False, include_url=False)))
        if len(part) == LINES_A_WRITE:
            async with change.begin() as write:
                await store(write, part, tally)
            part = []
    async with change.begin() as write:
        await store(write, part, tally)
    return tally.result(change.revision)


async def _lines(body: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    number, rest = 0, b""
    async for chunk in body:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            yield number, _bounded(number, line)
        _bounded(number + 1, rest)
    if rest:
        yield number + 1, rest


def _bounded(number: int, line: bytes) -> bytes:
    if len(line) > MAX_LINE_BYTES:
        raise InvalidError([FieldError(f"line {number}", f"is longer than {MAX_LINE_BYTES} bytes")])
    return line


async def store_clients(write: ConfigWrite, part: Sequence[Numbered[ClientCreate]], tally: Tally) -> None:
    """Make or change the clients of a part; overrides that suit the plan stay. Of two lines for one client the later
    counts.
    """
    latest = {item.line.client: item for item in part}
    before = await bulk.records(write.session, list(latest))
    rules = await bulk.rules_of(write.session, (item.line.plan for item in latest.values()))
    tally.unchanged += len(part) - len(latest)
    wishes = []
    for name, (number, line) in latest.items():
        known = before.get(name)
        wish = ClientWish(name, line, {}, {} if known is None else known.overrides)
        faults = list(bulk.faults(wish, rules, ""))
        if faults:
            tally.refuse(number, faults)
        elif known is None:
            tally.made += 1
            wishes.append(wish)
        elif (line.plan, line.status, line.attributes, line.external_id) == (
            known.plan,
            known.status,
            known.attributes,
            known.external_id,
        ):
            tally.unchanged += 1
        else:
            tally.changed += 1
            wishes.append(wish)
    if wishes:
        await bulk.put_part(write, wishes, rules)


def store_keys(new_id: Callable[[], str]) -> Store:
    """How the keys of a part are taken in; ``new_id`` makes their ids."""

    async def store(write: ConfigWrite, part: Sequence[Numbered[KeyImport]], tally: Tally) -> None:
        hashes = [item.line.secret_sha256 or secret_sha256(item.line.secret or "") for item in part]
        found = await write.session.execute(_KEYS, {"hashes": hashes})
        owners = {row.sha256: row.client for row in found}
        names = await write.session.scalars(_CLIENTS, {"names": sorted({item.line.client for item in part})})
        clients = set(names)
        rows = []
        for (number, line), sha256 in zip(part, hashes, strict=True):
            fault = _key_fault(line, owners.get(sha256), clients)
            if fault is not None:
                tally.refuse(number, [fault])
            elif sha256 in owners:
                tally.unchanged += 1
            else:
                owners[sha256] = line.client
                tally.made += 1
                rows.append(_row(line, sha256, new_id()))
        if rows:
            await _put_keys(write, rows)

    return store


def _key_fault(line: KeyImport, owner: str | None, clients: set[str]) -> FieldError | None:
    if line.client not in clients:
        return FieldError("client", f"there is no client named {line.client}")
    if owner is not None and owner != line.client:
        return FieldError("secret" if line.secret else "secret_sha256", "is a key of another client already")
    if line.secret is not None and not looks_random(line.secret):
        return FieldError("secret", "does not look random: it needs at least 128 random bits")
    return None


def _row(line: KeyImport, sha256: str, key_id: str) -> KeyRow:
    prefix = None if line.secret is None else shown_prefix(line.secret)
    return KeyRow(
        key_id=key_id, client=line.client, sha256=sha256, prefix=prefix, name=line.name, expires_at=line.expires_at
    )


async def _put_keys(write: ConfigWrite, rows: Sequence[KeyRow]) -> None:
    values: dict[str, list[Any]] = {
        "ids": [row.key_id for row in rows],
        "clients": [row.client for row in rows],
        "hashes": [row.sha256 for row in rows],
        "prefixes": [row.prefix for row in rows],
        "names": [row.name for row in rows],
        "ends": [row.expires_at for row in rows],
    }
    created = {row.key_id: row.created_at for row in await write.session.execute(_PUT_KEYS, values)}
    for row in rows:
        row.created_at = created[row.key_id]
        write.record("key", f"{row.client}/{row.key_id}", None, view(row))
        write.publish(key_document(row))

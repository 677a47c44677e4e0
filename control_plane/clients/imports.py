"""Bulk imports, line by line (NDJSON): a part at a time, so that memory stays small whatever the length.

Each part of 2,000 lines is a write of its own. Whoever is interrupted sends the same lines again: what is there already
changes nothing.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from control_plane.clients import repository as client_rows
from control_plane.clients import writes
from control_plane.clients.schemas import ClientCreate, ImportResult, LineError
from control_plane.clients.writes import ClientWish
from control_plane.errors import FieldError, InvalidError
from control_plane.publishing.writer import Change, ConfigWrite
from control_plane.web.problems import field_errors

LINES_A_WRITE = 2_000
MAX_LINE_BYTES = 64 * 1024
SHOWN_ERRORS = 100
Line = TypeVar("Line", bound=BaseModel)


class Numbered(NamedTuple, Generic[Line]):
    """A valid line, and its number from 1."""

    number: int
    line: Line


class Tally:
    """The results of the lines so far."""

    def __init__(self) -> None:
        self.lines = self.made = self.changed = self.unchanged = self.refused = 0
        self.errors: list[LineError] = []

    def refuse(self, number: int, faults: Sequence[FieldError]) -> None:
        """Note a refused line."""
        self.refused += 1
        for fault in faults:
            if len(self.errors) < SHOWN_ERRORS:
                self.errors.append(LineError(line=number, field=fault.field, message=fault.message))

    def result(self, revision: int) -> ImportResult:
        """The response."""
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
    """Make or change the clients of a part; overrides stay as far as they fit the plan. Of two valid lines for one
    client the later counts.
    """
    rules = await writes.rules_of(write.session, (item.line.plan for item in part))
    latest: dict[str, ClientCreate] = {}
    for number, line in part:
        faults = list(writes.faults(ClientWish(line.client, line, {}), rules, ""))
        if faults:
            tally.refuse(number, faults)
            continue
        tally.unchanged += line.client in latest
        latest[line.client] = line
    before = await client_rows.records(write.session, list(latest))
    wishes = []
    for name, line in latest.items():
        known = before.get(name)
        wish = ClientWish(name, line, {}, {} if known is None else known.overrides)
        if known is None:
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
        await writes.put_part(write, wishes, rules)

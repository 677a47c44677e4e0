"""Where other regions' counts arrive: who speaks is proven by a signature before a byte is unpacked."""

import zlib
from collections import Counter
from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from contract.counts import MAX_AGE_S, MAX_CELLS, PROTOCOL_VERSION, Counts, signed_counts
from data_plane.api.answers import Answer, InputError, json_answer, problem
from data_plane.api.caller import Headers, header
from data_plane.domain.index import RuleIndex
from data_plane.services.ports import Clock, StoreUnavailableError
from data_plane.services.reconcile import Reconciler

MAX_UNPACKED_BYTES = 1024 * 1024
_decoder = msgspec.msgpack.Decoder(Counts)


class PeerDoor:
    """``POST /internal/v1/counts``. A region's key speaks only for that region."""

    def __init__(self, region: str, index: Callable[[], RuleIndex], reconciler: Reconciler, clock: Clock) -> None:
        self._region = region
        self._index = index
        self._reconciler = reconciler
        self._clock = clock
        self.refused_by_reason: Counter[str] = Counter()

    async def counts(self, headers: Headers, body: bytes) -> Answer:
        """Verify, unpack within bounds, merge."""
        try:
            counts = self._read(self._sender(headers, body), body)
            return json_answer(await self._reconciler.receive(counts))
        except InputError as error:
            return error.answer()
        except StoreUnavailableError as error:
            return problem(503, f"the store of this region is away: {error.reason}")

    def _sender(self, headers: Headers, body: bytes) -> str:
        name = (header(headers, b"x-tidegate-region") or b"").decode("latin-1")
        region = self._index().book.regions.get(name)
        if region is None or region.public_key is None or name == self._region:
            raise self._refused("unknown_region", 401, "no such peer region")
        try:
            signature = bytes.fromhex((header(headers, b"x-tidegate-signature") or b"").decode("latin-1"))
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(region.public_key))
            key.verify(signature, signed_counts(self._region, body))
        except (InvalidSignature, ValueError):
            raise self._refused("bad_signature", 401, "the signature does not hold") from None
        return name

    def _read(self, sender: str, body: bytes) -> Counts:
        unpacker = zlib.decompressobj()
        try:
            unpacked = unpacker.decompress(body, MAX_UNPACKED_BYTES)
            if unpacker.unconsumed_tail:
                raise self._refused("too_large", 413, f"more than {MAX_UNPACKED_BYTES} bytes unpacked")
            counts = _decoder.decode(unpacked)
        except (zlib.error, msgspec.DecodeError) as error:
            raise self._refused("malformed", 400, f"not a batch of counts: {error}") from error
        if counts.region != sender:
            raise self._refused("wrong_region", 403, "a region speaks only for itself")
        if counts.version != PROTOCOL_VERSION:
            raise self._refused("version", 400, f"protocol version {counts.version} is not {PROTOCOL_VERSION}")
        if abs(counts.sent_at - self._clock.now_us() / 1e6) > MAX_AGE_S:
            raise self._refused("too_old", 400, "sent too long ago, or from the future")
        if len(counts.cells) > MAX_CELLS:
            raise self._refused("too_large", 413, f"more than {MAX_CELLS} cells")
        if any(cell.taken < 0 or not 0 <= cell.returned <= cell.taken for cell in counts.cells):
            raise self._refused("implausible", 400, "a cell gave back more than was taken")
        return counts

    def _refused(self, reason: str, status: int, detail: str) -> InputError:
        self.refused_by_reason[reason] += 1
        return InputError(status, detail)

"""One tenant's part of a batch as the parameters of ``settle_batch`` (migration 0029).

What the store must calculate with goes in typed arrays, an element an entry; the row itself goes as JSON by the names of its
columns, which the store takes apart once. Levels repeat: a batch's distinct lists of them go once, and entries point there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from shipworthy.adapters.store import arrays
from shipworthy.adapters.store.ledger import claims_json
from shipworthy.adapters.store.rows import encode
from shipworthy.adapters.store.vault import Sealed
from shipworthy.model.exchange import Outcome
from shipworthy.model.ledger import Claim
from shipworthy.ports import Entry

NO_PATH = -1
_encoder = msgspec.json.Encoder()


class Part(Struct, frozen=True, gc=False):
    """One sealed body: of which entry (from 1), and which side."""

    place: int
    part: str
    sealed: Sealed
    truncated: bool


class Paths:
    """The distinct lists of levels of a batch, in the order in which they were met."""

    def __init__(self) -> None:
        self._places: dict[tuple[Claim, ...], int] = {}
        self._met: dict[int, int] = {}  # by id(): what a batch holds stays alive until it is written
        self._claims: list[bytes] = []
        self._levels: list[bytes] = []

    def place(self, claims: tuple[Claim, ...]) -> int:
        place = self._met.get(id(claims))
        if place is None:
            place = self._met[id(claims)] = self._places.setdefault(claims, len(self._claims))
            if place == len(self._claims):
                self._claims.append(claims_json(claims).encode())
                self._levels.append(encode([f"{claim.key}@{claim.period}" for claim in claims if claim.cap_nano >= 0]))
        return place

    def claims(self, place: int) -> bytes:
        """The levels as JSON, of the type claim[]."""
        return self._claims[place]

    def levels(self, place: int) -> bytes:
        """The budgeted ones, as the column ``levels``."""
        return self._levels[place]

    def json(self) -> bytes:
        return b"[%b]" % b",".join(self._claims)


def settlement(
    tenant: str, entries: Sequence[Entry], parts: Sequence[Part], presume: bool, now: datetime | None
) -> dict[str, object]:
    """``entries`` are all of ``tenant`` and in the order of their ids; ``parts`` in the order of the entries."""
    paths = Paths()
    path = [paths.place(entry.hold.claims) if entry.hold is not None else NO_PATH for entry in entries]
    return {
        "tenant": tenant,
        "presume": presume,
        "now": now,
        "rows": _rows(entries, path, paths, parts),
        "paths": arrays.jsonb(paths.json()),
        "ids": arrays.uuids([entry.row.id for entry in entries]),
        "arrived": arrays.bigints([entry.row.arrived_unix_ns for entry in entries]),
        "path": arrays.integers(path),
        "charged": arrays.bigints([entry.row.charged_nano for entry in entries]),
        "tokens": arrays.bigints([entry.charge.tokens if entry.charge is not None else 0 for entry in entries]),
        "counts": arrays.booleans([entry.row.outcome is not Outcome.REFUSED for entry in entries]),
        "lease": arrays.uuids([entry.hold.lease_id if entry.hold is not None else None for entry in entries]),
        "taken": arrays.bigints([_taken(entry) for entry in entries]),
        "body_of": arrays.integers([part.place for part in parts]),
        "body_parts": arrays.texts([part.part for part in parts]),
        "body_keys": arrays.uuids([part.sealed.key_id for part in parts]),
        "body_nonces": arrays.byteas([part.sealed.nonce for part in parts]),
        "body_texts": arrays.byteas([part.sealed.ciphertext for part in parts]),
        "body_cut": arrays.booleans([part.truncated for part in parts]),
    }


def _taken(entry: Entry) -> int:
    """How much of the charge its lease pays: what goes beyond what was held is nobody's to pay ahead."""
    if entry.hold is None or entry.hold.lease_id is None:
        return 0
    return min(entry.row.charged_nano, entry.hold.estimate.amount_nano)


def _rows(entries: Sequence[Entry], path: Sequence[int], paths: Paths, parts: Sequence[Part]) -> arrays.Ready:
    """The rows as JSON, each with its levels and the hashes of its bodies."""
    digests = [b"" for _ in entries]
    for part in parts:
        hexed = hashlib.sha256(part.sealed.ciphertext).hexdigest()
        digests[part.place - 1] += f',"{part.part}_sha256":"\\\\x{hexed}"'.encode()
    rows = arrays.Documents()
    for entry, place, digest in zip(entries, path, digests, strict=True):
        text = rows.open()
        _append(text, rows.begin, entry)
        text[-1:] = b',"levels":%b%b}' % (paths.levels(place) if place >= 0 else b"[]", digest)
        rows.close()
    return rows.ready()


def _append(text: bytearray, begin: int, entry: Entry) -> None:
    """The row's JSON, at the end of ``text``. What PostgreSQL cannot hold is rare, and costs only its own row."""
    try:
        _encoder.encode_into(entry.row, text, -1)
    except UnicodeEncodeError:  # a lone surrogate
        text[begin:] = encode(entry.row)
    if text.find(b"\\u0000", begin) >= 0:
        text[begin:] = encode(entry.row)

"""One tenant's part of a batch as the parameters of ``settle_rows`` and ``kept_rows`` (migration 0035).

An array each, with an element an entry. Levels repeat: a batch's distinct lists of them go once, and entries point there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

from msgspec import Struct

from shipworthy.adapters.store import arrays
from shipworthy.adapters.store.columns import columns
from shipworthy.adapters.store.ledger import claims_json
from shipworthy.adapters.store.vault import Sealed
from shipworthy.model.exchange import Outcome
from shipworthy.model.ledger import Claim
from shipworthy.ports import Entry

NO_PATH = -1


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

    def place(self, claims: tuple[Claim, ...]) -> int:
        place = self._met.get(id(claims))
        if place is None:
            place = self._met[id(claims)] = self._places.setdefault(claims, len(self._claims))
            if place == len(self._claims):
                self._claims.append(claims_json(claims).encode())
        return place

    def claims(self, place: int) -> bytes:
        """The levels as JSON, of the type claim[]."""
        return self._claims[place]

    def json(self) -> bytes:
        return b"[%b]" % b",".join(self._claims)


def settlement(
    tenant: str, entries: Sequence[Entry], parts: Sequence[Part], presume: bool, now: datetime | None
) -> dict[str, object]:
    """``entries`` are all of ``tenant`` and in the order of their ids; ``parts`` in the order of the entries."""
    paths, rows = Paths(), [entry.row for entry in entries]
    path = [paths.place(entry.hold.claims) if entry.hold is not None else NO_PATH for entry in entries]
    return {
        "tenant": tenant,
        "presume": presume,
        "now": now,
        **columns(rows),
        "paths": arrays.jsonb(paths.json()),
        "ids": arrays.uuids([row.id for row in rows]),
        "arrived": arrays.bigints([row.arrived_unix_ns for row in rows]),
        "path": arrays.integers(path),
        "charged": arrays.bigints([row.charged_nano for row in rows]),
        "tokens": arrays.bigints([entry.charge.tokens if entry.charge is not None else 0 for entry in entries]),
        "counts": arrays.booleans([row.outcome is not Outcome.REFUSED for row in rows]),
        "lease": arrays.uuids([entry.hold.lease_id if entry.hold is not None else None for entry in entries]),
        "taken": arrays.bigints([_taken(entry) for entry in entries]),
        "request_sha256": _digests(parts, "request", len(rows)),
        "reply_sha256": _digests(parts, "reply", len(rows)),
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


def _digests(parts: Sequence[Part], part: str, count: int) -> arrays.Ready:
    """The hash of each entry's body of this side; null where none is kept."""
    found: list[bytes | None] = [None] * count
    for each in parts:
        if each.part == part:
            found[each.place - 1] = sha256(each.sealed.ciphertext).digest()
    return arrays.byteas(found)

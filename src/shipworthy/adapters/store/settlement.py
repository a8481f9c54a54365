"""One tenant's part of a batch as the parameters of ``settle_batch`` (migration 0029).

What the store must calculate with goes in typed arrays, an element an entry; the row itself goes as JSON by the names of its
columns, which the store takes apart once. Levels repeat: a batch's distinct lists of them go once, and entries point there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from shipworthy.adapters.store import arrays
from shipworthy.adapters.store.ledger import claims_json
from shipworthy.adapters.store.rows import encode
from shipworthy.adapters.store.sheets import Sheet
from shipworthy.model.exchange import Outcome
from shipworthy.model.ledger import Claim
from shipworthy.ports import Entry

NO_PATH = -1


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


def settlement(tenant: str, sheets: Sequence[Sheet], presume: bool, now: datetime | None) -> dict[str, object]:
    """``sheets`` are all of ``tenant`` and in the order of their entries' ids."""
    entries = [made.entry for made in sheets]
    bodies = [(place, part, sealed) for place, made in enumerate(sheets, 1) for part, sealed in made.parts]
    paths = Paths()
    path = [paths.place(entry.hold.claims) if entry.hold is not None else NO_PATH for entry in entries]
    return {
        "tenant": tenant,
        "presume": presume,
        "now": now,
        "rows": _rows(sheets, path, paths),
        "paths": arrays.jsonb(paths.json()),
        "ids": arrays.uuids([entry.row.id for entry in entries]),
        "arrived": arrays.bigints([entry.row.arrived_unix_ns for entry in entries]),
        "path": arrays.integers(path),
        "charged": arrays.bigints([entry.row.charged_nano for entry in entries]),
        "tokens": arrays.bigints([entry.charge.tokens if entry.charge is not None else 0 for entry in entries]),
        "counts": arrays.booleans([entry.row.outcome is not Outcome.REFUSED for entry in entries]),
        "lease": arrays.uuids([entry.hold.lease_id if entry.hold is not None else None for entry in entries]),
        "taken": arrays.bigints([_taken(entry) for entry in entries]),
        "body_of": arrays.integers([place for place, _, _ in bodies]),
        "body_parts": arrays.texts([part for _, part, _ in bodies]),
        "body_keys": arrays.uuids([sealed.key_id for _, _, sealed in bodies]),
        "body_nonces": arrays.byteas([sealed.nonce for _, _, sealed in bodies]),
        "body_texts": arrays.byteas([sealed.ciphertext for _, _, sealed in bodies]),
        "body_cut": arrays.booleans([_truncated(entries[place - 1]) for place, _, _ in bodies]),
    }


def _truncated(entry: Entry) -> bool:
    return entry.bodies is not None and entry.bodies.truncated


def _taken(entry: Entry) -> int:
    """How much of the charge its lease pays: what goes beyond what was held is nobody's to pay ahead."""
    if entry.hold is None or entry.hold.lease_id is None:
        return 0
    return min(entry.row.charged_nano, entry.hold.estimate.amount_nano)


def _rows(sheets: Sequence[Sheet], path: Sequence[int], paths: Paths) -> arrays.Ready:
    """The rows as JSON, each with its levels."""
    levels = [paths.levels(place) if place >= 0 else b"[]" for place in path]
    return arrays.documents([b'%b,"levels":%b}' % (made.row, of) for made, of in zip(sheets, levels, strict=True)])

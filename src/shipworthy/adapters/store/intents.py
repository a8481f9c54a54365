"""Intents on their way into the store: what leased exchanges leave behind if their worker dies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from shipworthy.adapters.store import arrays
from shipworthy.adapters.store.settlement import Paths
from shipworthy.ports import Intent


def intention(tenant: str, intents: Sequence[Intent], worker: str, now: datetime | None) -> dict[str, object]:
    """The parameters of ``intend`` (migration 0033); ``intents`` are all of ``tenant`` and in the order of their ids."""
    paths = Paths()
    holds = [intent.hold for intent in intents]
    return {
        "tenant": tenant,
        "worker": worker,
        "now": now,
        "ids": arrays.uuids([hold.id for hold in holds]),
        "arrived": arrays.bigints([intent.arrived_unix_ns for intent in intents]),
        "claims": arrays.jsonbs([paths.claims(paths.place(hold.claims)) for hold in holds]),
        "amounts": arrays.bigints([hold.estimate.amount_nano for hold in holds]),
        "tokens": arrays.bigints([hold.estimate.tokens for hold in holds]),
        "leases": arrays.uuids([hold.lease_id for hold in holds]),
        "expires_s": arrays.floats([intent.expires_s for intent in intents]),
        "drafts": arrays.byteas([intent.draft() for intent in intents]),
    }

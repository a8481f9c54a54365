"""Intents on their way into the store: what leased exchanges leave behind if their worker dies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

import psycopg
from psycopg.rows import TupleRow

from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.ledger import claims_json
from shipworthy.ports import Intent


def write_intents(
    conn: psycopg.Connection[TupleRow], worker: str, intents: Sequence[Intent], now: datetime | None
) -> None:
    """Commits all of ``intents``, tenant by tenant. Blocks; raises psycopg's errors."""
    statement = blocks("intents")["intend"]
    for tenant, group in groupby(sorted(intents, key=_tenant), key=_tenant):
        mine = list(group)
        holds = [intent.hold for intent in mine]
        asked = {
            "tenant": tenant,
            "ids": [hold.id for hold in holds],
            "arrived": [intent.arrived_unix_ns for intent in mine],
            "claims": [claims_json(hold.claims) for hold in holds],
            "amounts": [hold.estimate.amount_nano for hold in holds],
            "tokens": [hold.estimate.tokens for hold in holds],
            "leases": [hold.lease_id for hold in holds],
            "worker": worker,
            "expires_s": [intent.expires_s for intent in mine],
            "drafts": [intent.draft() for intent in mine],
            "now": now,
        }
        conn.execute(statement, asked)


def _tenant(intent: Intent) -> str:
    return intent.hold.tenant

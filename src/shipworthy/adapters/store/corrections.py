"""Corrections in the store. One and the act that made it are one transaction, with the counters that it moves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
from psycopg.rows import dict_row

from shipworthy.adapters.store.acts import moment, record
from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import Connection, Store
from shipworthy.adapters.store.rows import clean_text, encode
from shipworthy.model.correction import Applied, Correction, Verdict
from shipworthy.model.reading import EVERY_TENANT
from shipworthy.ports import CORRECTIONS_MAX, AdminAct


class StoreCorrections:
    """ports.Corrections. Only the operator's role can add one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def of(self, scope: str, exchange_ids: Sequence[UUID]) -> Sequence[Correction]:
        asked = {"exchange_ids": list(exchange_ids), "limit": CORRECTIONS_MAX}
        async with self._reading(scope) as conn:
            found = await conn.cursor(row_factory=dict_row).execute(blocks("corrections")["of"], asked)
            return [_correction(record) for record in await found.fetchall()]

    async def apply(self, correction: Correction, expected_nano: int | None, act: AdminAct) -> Applied:
        said = {name: getattr(correction, name) for name in correction.__struct_fields__ if name != "levels"}
        texts = {name: clean_text(text) for name, text in said.items() if isinstance(text, str) and name != "tenant"}
        asked = said | texts
        asked["lines"] = encode(correction.lines).decode()
        asked["at"] = moment(correction.at_unix_ns)
        asked["expected_nano"] = expected_nano
        async with self._store.operator() as conn:
            answer = await (await conn.execute(blocks("corrections")["correct"], asked)).fetchone()
            assert answer is not None, "correct() returns one row"
            state, charged_nano, levels = answer
            applied = Applied(Verdict(state), int(charged_nano or 0), tuple(levels or ()))
            if applied.verdict is Verdict.APPLIED:
                await record(conn, act)
        return applied

    @asynccontextmanager
    async def _reading(self, scope: str) -> AsyncGenerator[Connection]:
        if not scope:
            raise ValueError("an empty scope is an error, never everything")
        async with self._store.operator() if scope == EVERY_TENANT else self._store.tenant(scope) as conn:
            yield conn


def _correction(record: dict[str, Any]) -> Correction:
    return msgspec.convert(record, Correction)

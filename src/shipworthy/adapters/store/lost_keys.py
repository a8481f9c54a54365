"""A key file that is gone is not a new deployment: nothing may be made in its place while the store holds what it opened."""

from __future__ import annotations

from pathlib import Path

import psycopg

from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import SCHEMA, StoreRole
from shipworthy.adapters.store.trouble import translated
from shipworthy.model.errors import StartRefused


def refuse_lost_keys(url: str, keys_file: Path) -> None:
    """Raises StartRefused when ``keys_file`` does not exist and the store at ``url`` was written under one."""
    if keys_file.exists():
        return
    options = f"-c role={StoreRole.OPERATOR} -c search_path={SCHEMA},public"
    with translated(), psycopg.connect(url, options=options, autocommit=True, connect_timeout=5) as conn:
        try:
            row = conn.execute(blocks("lost_keys")["sealed"]).fetchone()
        except psycopg.errors.UndefinedTable:
            return  # no schema yet: whoever needs one refuses
    if row is not None and row[0]:
        raise StartRefused(
            "keys.lost",
            f"The key file {keys_file} is not there, and the store holds bodies or service keys that were made under it.",
            "Bring it back from the backup: under a new one they stay unreadable. To begin anew, use another store.",
        )

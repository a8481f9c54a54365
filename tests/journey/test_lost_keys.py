"""A key file that is gone stops the start; it is never silently replaced while the store holds what it opened."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from shipworthy.adapters.store.lost_keys import refuse_lost_keys
from shipworthy.model.errors import StartRefused


def test_a_new_deployment_may_make_its_keys(fresh_store, tmp_path: Path) -> None:
    refuse_lost_keys(fresh_store.url, tmp_path / "keys.json")


def test_lost_keys_refuse_the_start(fresh_store, tmp_path: Path) -> None:
    """Promise 4: what was recorded stays readable; nobody makes it unreadable by an oversight."""
    with psycopg.connect(fresh_store.superuser_url, autocommit=True) as conn:
        conn.execute("set search_path = shipworthy, public")
        conn.execute(
            "insert into data_key (tenant, key_id, subject, kek_id, wrapped)"
            " values ('acme', gen_random_uuid(), 'ada', 'k', 'x')"
        )
    with pytest.raises(StartRefused, match=r"keys\.lost"):
        refuse_lost_keys(fresh_store.url, tmp_path / "keys.json")
    (tmp_path / "keys.json").write_text("{}")
    refuse_lost_keys(fresh_store.url, tmp_path / "keys.json")

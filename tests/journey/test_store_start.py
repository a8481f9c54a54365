"""The server does not start over a store that would not keep its promises, and says what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest

from shipworthy.adapters.store.assertions import assert_store
from shipworthy.adapters.store.pool import Store
from shipworthy.model.errors import StartRefused


def start(url: str) -> None:
    async def play() -> None:
        async with Store(url) as store:
            await assert_store(store)

    asyncio.run(play())


@dataclass(frozen=True)
class Sabotage:
    """A change that somebody made, what the start says about it, and how to undo what belongs to the whole cluster."""

    done: str
    code: str
    named: str
    undone: str = ""


SABOTAGE = {
    "policy dropped": Sabotage(
        "drop policy exchange_app_select on exchange", "store.policy_missing", "SELECT on exchange"
    ),
    "recorder's policy dropped": Sabotage(
        "drop policy body_recorder_insert on body", "store.policy_missing", "INSERT on body by shipworthy_recorder"
    ),
    "operator's policy dropped": Sabotage(
        "drop policy hold_operator_select on hold", "store.policy_missing", "shipworthy_operator"
    ),
    "not forced": Sabotage("alter table counter no force row level security", "store.policy_missing", "counter"),
    "disabled": Sabotage("alter table data_key disable row level security", "store.policy_missing", "data_key"),
    "partition not forced": Sabotage(
        "alter table exchange_default no force row level security", "store.policy_missing", "exchange_default"
    ),
    "new table without": Sabotage("create table loose (tenant text)", "store.policy_missing", "loose"),
    "wide policy": Sabotage(
        "create policy open on exchange for select to shipworthy_app using (true)",
        "store.policy_wide",
        "open on exchange",
    ),
    "wide for everyone": Sabotage("create policy open on hold using (true)", "store.policy_wide", "open on hold"),
    "policy with an or": Sabotage(
        "alter policy hold_app on hold using (tenant = nullif((select current_setting('app.tenant', true)), '') or true)",
        "store.policy_wide",
        "hold_app on hold",
    ),
    "update granted": Sabotage(
        "grant update on exchange to shipworthy_operator", "store.policy_missing", "UPDATE on exchange"
    ),
    "update granted, with a policy": Sabotage(
        "grant update on exchange to shipworthy_operator;"
        " create policy edit on exchange for update to shipworthy_operator using (true)",
        "store.record_editable",
        "UPDATE on exchange by shipworthy_operator",
    ),
    "one column granted": Sabotage(
        "grant update (flags) on exchange to shipworthy_operator;"
        " create policy edit on exchange for update to shipworthy_operator using (true)",
        "store.record_editable",
        "UPDATE on exchange",
    ),
    "delete granted to the login": Sabotage(
        "grant delete on admin_act to shipworthy", "store.record_editable", "DELETE on admin_act by shipworthy"
    ),
    "partition granted": Sabotage(
        "grant select on body_default to shipworthy_app;"
        " create policy all_of_it on body_default for select to shipworthy_app"
        " using (tenant = nullif((select current_setting('app.tenant', true)), ''))",
        "store.partition_open",
        "body_default by shipworthy_app",
    ),
    "function with any search_path": Sabotage(
        "alter function prepare_partitions reset search_path", "store.function_unsafe", "prepare_partitions"
    ),
    "extension dropped": Sabotage("drop extension vector", "store.vector_missing", "vector"),
    "schema behind": Sabotage("delete from migration where number = 4", "store.schema_behind", "0004_pre_settle.sql"),
    "schema newer": Sabotage(
        "insert into migration values (9000, '9000_post_later.sql', 'post', 'x')",
        "store.schema_newer",
        "9000_post_later",
    ),
    "migration changed": Sabotage(
        "update migration set sha256 = 'x' where number = 1", "store.migration_changed", "0001_pre_record.sql"
    ),
    "login a superuser": Sabotage(
        "alter role shipworthy superuser", "store.role_unsafe", "SUPERUSER", "alter role shipworthy nosuperuser"
    ),
    "role with bypass": Sabotage(
        "alter role shipworthy_app bypassrls", "store.role_unsafe", "BYPASSRLS", "alter role shipworthy_app nobypassrls"
    ),
    "role inherited": Sabotage(
        "grant shipworthy_operator to shipworthy with inherit true",
        "store.role_unsafe",
        "shipworthy_operator",
        "grant shipworthy_operator to shipworthy with inherit false",
    ),
    "role taken away": Sabotage(
        "revoke shipworthy_recorder from shipworthy granted by shipworthy_owner",
        "store.roles",
        "shipworthy_recorder",
        "grant shipworthy_recorder to shipworthy with inherit false, set true granted by shipworthy_owner",
    ),
    "login may become the owner": Sabotage(
        "grant shipworthy_owner to shipworthy with inherit false, set true",
        "store.login_owns",
        "owner shipworthy_owner",
        "revoke shipworthy_owner from shipworthy",
    ),
}


@contextmanager
def sabotaged(superuser_url: str, sabotage: Sabotage) -> Iterator[None]:
    with psycopg.connect(superuser_url, autocommit=True, options="-c search_path=shipworthy,public") as conn:
        conn.execute(sabotage.done)
        try:
            yield
        finally:
            if sabotage.undone:
                conn.execute(sabotage.undone)


def test_what_the_migrations_made_is_accepted(fresh_store) -> None:
    start(fresh_store.url)


@pytest.mark.parametrize("name", SABOTAGE)
def test_the_start_refuses(fresh_store, name) -> None:
    """Mutation: each of these is found, named, and comes with something to do."""
    sabotage = SABOTAGE[name]
    with sabotaged(fresh_store.superuser_url, sabotage), pytest.raises(StartRefused) as refused:
        start(fresh_store.url)
    assert refused.value.code == sabotage.code
    assert sabotage.named in refused.value.message
    assert refused.value.hint


def test_a_newer_release_that_only_added_is_accepted(fresh_store) -> None:
    """Two releases run side by side while the new one rolls out."""
    added = Sabotage("insert into migration values (9000, '9000_pre_later.sql', 'pre', 'x')", "", "")
    with sabotaged(fresh_store.superuser_url, added):
        start(fresh_store.url)


def test_a_store_that_was_never_migrated_says_so(empty_store) -> None:
    with pytest.raises(StartRefused) as refused:
        start(empty_store.url)
    assert refused.value.code in ("store.schema_missing", "store.roles")
    assert "migrate" in refused.value.hint


def test_a_store_that_does_not_answer_says_so(tmp_path) -> None:
    with pytest.raises(StartRefused) as refused:
        start(f"postgresql://nobody:secret@/nothing?host={tmp_path}")
    assert refused.value.code == "store.unreachable"
    assert "secret" not in str(refused.value)

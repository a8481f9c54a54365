"""What must hold of the store before the server starts. It refuses otherwise, and says what to do.

Row-level security is only as good as the roles and policies that are really there: somebody may have dropped a policy,
granted a right or connected as the owner. So this looks at the catalogue, not at what the migrations once said.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from msgspec import Struct

from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.migrate import SERVER_VERSION_MIN, Applied, shipped
from shipworthy.adapters.store.pool import SCHEMA, Connection, Store, StoreRole
from shipworthy.adapters.store.trouble import translated
from shipworthy.model.errors import StartRefused, StoreUnavailable

NAMED_MAX = 5
BOUND = (StoreRole.APP, StoreRole.RECORDER)
# Policies that are meant to show rows of no particular tenant: each is explained where it is made.
EXPLICIT = ("service_key_app_named", "key_change_select")
MIGRATE_HINT = "Run `shipworthy migrate` (or `shipworthy serve --migrate`) with store.migrate_url set."
RESTORE_HINT = "Somebody changed the schema by hand. Restore what the migrations made; until then nothing is served."


class Rule(Struct, frozen=True):
    """A block of assertions.sql whose rows offend, and how to say so."""

    block: str
    code: str
    message: str
    hint: str


ROLE_RULES = (
    Rule(
        "mighty_roles",
        "store.role_unsafe",
        "row-level security does not bind, or could be changed by, {}",
        "Let store.url log in as an ordinary role: NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOREPLICATION.",
    ),
    Rule("missing_roles", "store.roles", "the login may not take the role {}", MIGRATE_HINT),
    Rule(
        "inherited_roles",
        "store.role_unsafe",
        "the login has the rights of {} without taking the role",
        "GRANT the role to the login WITH INHERIT FALSE, SET TRUE.",
    ),
)
SCHEMA_RULES = (
    Rule(
        "owned_tables",
        "store.login_owns",
        "the login of store.url could alter {}",
        "Use a login that does not own the schema: store.url and store.migrate_url are two different roles.",
    ),
    Rule("unforced_tables", "store.policy_missing", "row-level security is not forced on {}", RESTORE_HINT),
    Rule("uncovered_grants", "store.policy_missing", "no policy says which rows: {}", RESTORE_HINT),
    Rule("wide_policies", "store.policy_wide", "a policy does not keep tenants apart: {}", RESTORE_HINT),
    Rule("editable_record", "store.record_editable", "the record could be changed: {}", "REVOKE it."),
    Rule("open_partitions", "store.partition_open", "a partition can be reached past its parent: {}", "REVOKE it."),
    Rule(
        "loose_functions",
        "store.function_unsafe",
        "a function of the owner's runs with any search_path: {}",
        RESTORE_HINT,
    ),
)


async def assert_store(store: Store) -> None:
    """Raises StartRefused with the first thing that does not hold."""
    try:
        with translated():
            async with await psycopg.AsyncConnection.connect(
                store.url, autocommit=True, prepare_threshold=None, connect_timeout=store.bounds.connect_s
            ) as conn:
                await _assert_all(conn)
    except StoreUnavailable as away:
        raise StartRefused("store.unreachable", f"The store does not answer: {away}", "Check store.url.") from away


async def _assert_all(conn: Connection) -> None:
    if conn.info.server_version < SERVER_VERSION_MIN:
        raise StartRefused(
            "store.version",
            f"The store runs PostgreSQL {conn.info.parameter_status('server_version')}; 16 or newer is needed.",
            "Upgrade the server, or leave store.url out to use the embedded one.",
        )
    await _assert_rules(conn, ROLE_RULES)
    if not (await _asked(conn, "prepared"))[0]:
        raise StartRefused("store.schema_missing", f"The store has no schema {SCHEMA}.", MIGRATE_HINT)
    if not await _asked(conn, "extension"):
        raise StartRefused(
            "store.vector_missing",
            "The extension vector (pgvector) is not in this database.",
            "Let a superuser run in it: CREATE EXTENSION vector;",
        )
    await _assert_rules(conn, SCHEMA_RULES)
    await _assert_migrations(conn)


async def _assert_rules(conn: Connection, rules: Sequence[Rule]) -> None:
    for rule in rules:
        found = [str(name) for name in await _asked(conn, rule.block)]
        if found:
            named = ", ".join(sorted(found)[:NAMED_MAX]) + (", …" if len(found) > NAMED_MAX else "")
            raise StartRefused(rule.code, f"In the store {rule.message.format(named)}.", rule.hint)


async def _asked(conn: Connection, block: str) -> list[object]:
    asked = {"roles": list(StoreRole), "bound": list(BOUND), "explicit": list(EXPLICIT)}
    return [row[0] for row in await (await conn.execute(blocks("assertions")[block], asked)).fetchall()]


async def _assert_migrations(conn: Connection) -> None:
    """The schema is this code's. One that a newer release has only added to (``pre``) will do: both run side by side."""
    await conn.execute(f"set role {StoreRole.APP}")
    rows = await (await conn.execute(blocks("migrate")["registered"])).fetchall()
    applied = {entry.number: entry for entry in (Applied(*row) for row in rows)}
    ours = {migration.number: migration for migration in shipped()}
    behind = [migration.name for number, migration in ours.items() if number not in applied]
    if behind:
        raise StartRefused("store.schema_behind", f"The schema lacks {', '.join(behind)}.", MIGRATE_HINT)
    changed = [
        entry.name for number, entry in applied.items() if number in ours and ours[number].sha256 != entry.sha256
    ]
    if changed:
        raise StartRefused(
            "store.migration_changed",
            f"{', '.join(changed)} was run on this database with another content.",
            "Install the release that migrated it.",
        )
    newer = [entry.name for number, entry in applied.items() if number not in ours and entry.phase == "post"]
    if newer:
        raise StartRefused(
            "store.schema_newer", f"A newer Shipworthy has run {', '.join(newer)}.", "Run that version, or a newer one."
        )

"""The three roles that the server takes, and the login that may take them.

``shipworthy_app``, ``shipworthy_recorder`` and ``shipworthy_operator`` cannot log in. The login of ``store.url`` is a member
of each WITH INHERIT FALSE, SET TRUE: it has no rights of its own and becomes one of them. Roles belong to the whole cluster,
so they may be there already: another database's, or a DBA's work where ``migrate_url`` may not create roles.
"""

from __future__ import annotations

import psycopg
from psycopg import Connection, errors, sql

from shipworthy.adapters.store.blocks import blocks
from shipworthy.adapters.store.pool import StoreRole
from shipworthy.model.errors import StartRefused

TRIES_MAX = 5  # two databases of one cluster may be prepared at once: "tuple concurrently updated"


def prepare_roles(conn: Connection, login: str) -> None:
    """The roles exist, are ordinary, and ``login`` may take them. Raises StartRefused with what a DBA must run."""
    for left in range(TRIES_MAX - 1, -1, -1):
        try:
            _prepare(conn, login)
            return
        except (errors.DuplicateObject, errors.UniqueViolation, errors.InternalError_) as concurrent:
            if not left:
                raise StartRefused(
                    "store.roles", f"The roles could not be prepared: {concurrent}.", "Try again."
                ) from concurrent


def _prepare(conn: Connection, login: str) -> None:
    found = {
        name: (mighty, takeable)
        for name, mighty, takeable in conn.execute(
            blocks("migrate")["role_standing"], {"login": login, "roles": list(StoreRole)}
        )
    }
    for role in StoreRole:
        mighty, takeable = found.get(role, (False, False))
        if mighty:
            raise StartRefused(
                "store.role_unsafe",
                f"The role {role} is a superuser or has BYPASSRLS, so that row-level security would not bind it.",
                f"As a superuser: ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS;",
            )
        try:
            if role not in found:
                conn.execute(sql.SQL("create role {} nologin").format(sql.Identifier(role)))
            if not takeable and login != role:
                conn.execute(grant(role, login))
        except errors.UndefinedObject as missing:
            raise StartRefused(
                "store.login_missing",
                f"The login {login!r} of store.url does not exist on the server of migrate_url.",
                "Create it (NOSUPERUSER), or correct store.url.",
            ) from missing
        except errors.InsufficientPrivilege as refused:
            raise StartRefused(
                "store.roles",
                f"The login of migrate_url may not create or grant the role {role}: {refused.diag.message_primary}.",
                f"Let a DBA run: {dba_script(conn, login)}",
            ) from refused


def grant(role: StoreRole, login: str) -> sql.Composed:
    return sql.SQL("grant {} to {} with inherit false, set true").format(sql.Identifier(role), sql.Identifier(login))


def dba_script(conn: psycopg.Connection, login: str) -> str:
    """The statements that prepare the roles, for somebody with more rights."""
    lines = [f"CREATE ROLE {role} NOLOGIN; {grant(role, login).as_string(conn)};" for role in StoreRole]
    return " ".join(lines)

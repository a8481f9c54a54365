"""Levels: every budget and limit that counts for a request, in lock order; the same object each time for the same path."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote

from shipworthy.model.policy import Level, Role, Snapshot, Tenant, UseCase

END_USER_CHARS_MAX = 256
PATHS_MAX = 4_096
"""How many paths' levels are kept; who comes beyond takes the place of the one that was longest not asked for."""

LevelsOf = Callable[[str, str, str, str], tuple[Level, ...]]
"""Tenant, role, use case and asserted end user, by name → every level that counts for such a request."""


def make_levels(snapshot: Snapshot) -> LevelsOf:
    """`levels` by name, and the same object each time: by it whoever comes later knows the path."""

    @lru_cache(maxsize=PATHS_MAX)
    def levels_of(tenant: str, role: str, use_case: str, end_user: str) -> tuple[Level, ...]:
        home = snapshot.tenants[tenant]
        carried = next(each for each in home.roles if each.name == role)
        return levels(home, carried, snapshot.use_cases[use_case], end_user)

    return levels_of


def levels(tenant: Tenant, role: Role, use_case: UseCase, end_user: str) -> tuple[Level, ...]:
    """Every level that counts for a request, in lock order. A budget on a use case applies per tenant."""
    found = [
        Level("tenant", tenant.budget, tenant.limits),
        Level(f"team={role.team.name}", role.team.budget, role.team.limits),
        Level(f"use_case={use_case.name}", use_case.budget, use_case.limits),
    ]
    if end_user and role.each_end_user is not None:
        found.append(
            Level(f"end_user={spelled(end_user)}", role.each_end_user)
        )  # one budget, whichever role asserts it
    return tuple(sorted((level for level in found if level.budget or level.limits), key=lambda level: level.key))


def spelled(end_user: str) -> str:
    """An end user's id as part of a level's key: two ids never share one, whatever they hold and however long they are."""
    plain = quote(end_user, safe="@ ", errors="surrogatepass")
    if len(plain) <= END_USER_CHARS_MAX:
        return plain
    return f"sha256={hashlib.sha256(end_user.encode(errors='surrogatepass')).hexdigest()}"

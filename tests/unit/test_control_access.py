"""Who may work on the control plane, and what making and revoking keys leaves on record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

import pytest
from msgspec.structs import replace

from shipworthy.control.access import KeyAsked, authority, create_key, list_keys, revoke_key, within
from shipworthy.kit.memory_plane import TOKENS, MemoryPlane, a_snapshot, memory_plane
from shipworthy.model import service_key
from shipworthy.model.errors import Refusal
from shipworthy.model.identity import Principal
from shipworthy.model.op import Op
from shipworthy.model.reading import EVERY_TENANT, Authority
from shipworthy.ports import ServiceKey

T = TypeVar("T")
OPERATOR = Authority("olga", EVERY_TENANT)
ADMIN = Authority("ann", "northwind")


def of(principal: Principal) -> str:
    """The scope, or the code of the refusal."""
    try:
        return authority(a_snapshot(), principal).scope
    except Refusal as refused:
        return refused.code


def key_principal(role: str, **changes: object) -> Principal:
    return replace(Principal("northwind", "service:ci", kind="service", key_id="k", key_role=role), **changes)


@pytest.mark.parametrize(
    ("principal", "scope"),
    [
        (TOKENS["operator"], EVERY_TENANT),
        (TOKENS["northwind-admin"], "northwind"),
        (TOKENS["northwind-agent"], "admin.forbidden"),
        (replace(TOKENS["northwind-admin"], tenant="elsewhere"), "admin.forbidden"),
        (replace(TOKENS["northwind-admin"], tenant=""), "admin.forbidden"),
        (key_principal("platform"), "northwind"),
        (key_principal("platform", key_use_cases=("support",)), "admin.forbidden"),
        (key_principal("backend"), "admin.forbidden"),
        (key_principal("admin"), "admin.forbidden"),  # keys may not carry it
        (key_principal("platform", groups=("platform",), actor="service:ci", subject="ann"), "northwind"),
        (key_principal("backend", groups=("platform",), actor="service:ci", subject="ann"), "admin.forbidden"),
    ],
)
def test_authority(principal: Principal, scope: str) -> None:
    assert of(principal) == scope


def test_within_never_widens() -> None:
    assert within(ADMIN, "") == "northwind"
    assert within(OPERATOR, "") == EVERY_TENANT
    assert within(OPERATOR, "southwind") == "southwind"
    for tenant in ("southwind", EVERY_TENANT):
        with pytest.raises(Refusal, match="other_tenant"):
            within(ADMIN, tenant)


def run(story: Awaitable[T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(10):
            return await story

    return asyncio.run(bounded())


def made(memory: MemoryPlane, holder: Authority = ADMIN, **wish: object) -> tuple[ServiceKey, str]:
    plane = memory.plane
    asked = replace(KeyAsked(tenant="northwind", role="backend"), **wish)
    return run(create_key(Op.for_cli(plane.observe), plane.keys, plane.snapshot(), plane.pepper, holder, asked))


def test_a_key_is_made_with_its_act_and_shown_once() -> None:
    memory = memory_plane()
    key, text = made(memory, name="ci", use_cases=("support",), expires_days=90)
    secret = service_key.parse(text)
    assert secret is not None
    assert secret.id == key.id
    assert key.secret_hmac == secret.proof(memory.plane.pepper)
    assert key.expires_at is not None
    assert key.expires_at - key.created_at == timedelta(days=90)
    act = memory.acts.acts[0]
    assert (act.act, act.actor, act.tenant, act.target) == ("key.create", "ann", "northwind", key.id)
    assert secret.secret not in repr(memory.acts.acts) + repr(memory.keys.keys) + repr(memory.seen)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"tenant": "southwind"}, "not the caller's"),
        ({"role": "nobody"}, "not one of admin, agent, backend, platform"),
        ({"role": "agent"}, "keys: true is not set"),
        ({"use_cases": ("quotes",)}, "not one of faq, support"),
        ({"use_cases": ("faq",)}, "does not hold 'faq'"),
        ({"use_cases": ()}, "1 to 64"),
        ({"expires_days": 0}, "1 to 3650"),
        ({"expires_days": 10**9}, "1 to 3650"),
        ({"name": "x" * 65}, "64 printable"),
        ({"name": "a\x1b[31m"}, "64 printable"),
    ],
)
def test_a_key_that_cannot_be_is_refused_with_a_reason_and_leaves_nothing(wish: dict[str, object], said: str) -> None:
    memory = memory_plane()
    with pytest.raises(Refusal, match=said):
        made(memory, **wish)
    assert memory.keys.keys == {}
    assert memory.acts.acts == []


def test_revoking_is_recorded_once_and_stays_in_its_tenant() -> None:
    memory = memory_plane()
    key, _ = made(memory)
    plane, op = memory.plane, Op.for_cli(memory.plane.observe)
    for stranger in (Authority("sam", "southwind"), Authority("eve", "")):
        with pytest.raises(Refusal, match="not_found"):
            run(revoke_key(op, plane.keys, stranger, key.id))
    assert run(revoke_key(op, plane.keys, ADMIN, key.id)).revoked_at is not None
    assert run(revoke_key(op, plane.keys, OPERATOR, key.id)).revoked_at is not None
    assert [act.act for act in memory.acts.acts] == ["key.create", "key.revoke"]
    for wrong in ("", "x", "\0" * 16, key.id + "x"):
        with pytest.raises(Refusal, match="not_found"):
            run(revoke_key(op, plane.keys, ADMIN, wrong))


def test_lists_show_what_the_holder_covers() -> None:
    memory = memory_plane()
    ours, _ = made(memory)
    theirs, _ = made(memory, OPERATOR, tenant="southwind")
    plane, op = memory.plane, Op.for_cli(memory.plane.observe)
    assert [key.id for key in run(list_keys(op, plane.keys, plane.acts, plane.snapshot(), ADMIN))] == [ours.id]
    everyone = run(list_keys(op, plane.keys, plane.acts, plane.snapshot(), OPERATOR))
    assert {key.id for key in everyone} == {ours.id, theirs.id}

"""A mint is an administrative act: who, for whom, with which rights; the token itself is in no record."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shipworthy.adapters.identity.development import open_development_issuer
from shipworthy.control.tokens import TTL_S_MAX, mint, record_mint
from shipworthy.kit.clock import HandClock
from shipworthy.kit.memory_record import MemoryActs
from shipworthy.model.errors import StartRefused
from shipworthy.model.op import Kind, Op
from shipworthy.model.policy import Bodies, Role, Snapshot, Team, Tenant
from shipworthy.ports import TokenWish

SUPPORT = Team("support")
AGENT = Role("agent", SUPPORT, frozenset({"agents"}), False, frozenset({"*"}), 1)
SNAPSHOT = Snapshot(
    name="house", environment="development", digest="", data_classes=("public", "internal"), demands={},
    tenants={"northwind": Tenant("northwind", (AGENT,), {"support": SUPPORT}, {})},
    use_cases={}, models={}, providers={}, operator_groups=frozenset({"ops"}), strict=True,
    retention_days=1, bodies=Bodies(),
)  # fmt: skip


def wish(*groups: str, clearance: str = "", actor: str = "", ttl_s: int = 60) -> TokenWish:
    return TokenWish(tenant="northwind", subject="ada", groups=groups, clearance=clearance, actor=actor, ttl_s=ttl_s)


def op() -> Op:
    return Op(Kind.CLI, HandClock(1_800_000_000), lambda _: None)


def test_the_act_says_who_for_whom_and_with_which_rights(tmp_path: Path) -> None:
    issuer = open_development_issuer(tmp_path, "house", "development")
    minted = mint(op(), SNAPSHOT, issuer, wish("agents", "ops", clearance="internal", actor="bot"), "cli:root")
    acts = MemoryActs()
    asyncio.run(record_mint(acts, minted))
    act = acts.acts[0]
    assert (act.act, act.actor, act.tenant, act.target) == ("token.mint", "cli:root", "northwind", "ada")
    assert act.facts["groups"] == "agents, ops"
    assert (act.facts["clearance"], act.facts["actor"], act.facts["ttl_s"]) == ("internal", "bot", "60")
    assert not any(piece in repr(act) for piece in minted.token.split("."))
    assert minted.expires_unix_s == 1_800_000_060
    assert minted.warnings == ()


def test_a_mint_without_groups_is_warned_of(tmp_path: Path) -> None:
    issuer = open_development_issuer(tmp_path, "house", "development")
    assert "without groups" in mint(op(), SNAPSHOT, issuer, wish(), "cli:root").warnings[0]


@pytest.mark.parametrize(
    "asked",
    [
        wish("agents", ttl_s=0),
        wish("agents", ttl_s=TTL_S_MAX + 1),
        wish("agents", clearance="top"),
        wish("agents", actor=" bot"),
        wish("a\n"),
        wish(*(str(n) for n in range(101))),
    ],
    ids=lambda asked: f"{asked!r:.60}",
)
def test_wishes_beyond_what_may_be_minted(tmp_path: Path, asked: TokenWish) -> None:
    issuer = open_development_issuer(tmp_path, "house", "development")
    with pytest.raises(StartRefused):
        mint(op(), SNAPSHOT, issuer, asked, "cli:root")

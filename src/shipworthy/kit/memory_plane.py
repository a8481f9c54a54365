"""A control plane without a store: two tenants, an administrator of each, an agent, an operator, and their tokens."""

from __future__ import annotations

from types import MappingProxyType
from zoneinfo import ZoneInfo

from msgspec import Struct

from shipworthy.kit.memory_alerts import MemoryAlertLog
from shipworthy.kit.memory_books import MemoryBooks, MemoryCorrections
from shipworthy.kit.memory_keys import MemoryKeys
from shipworthy.kit.memory_pauses import MemoryPauses
from shipworthy.kit.memory_record import MemoryActs, MemoryExchanges
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Row
from shipworthy.model.identity import Credentials, Principal
from shipworthy.model.money import Period
from shipworthy.model.observation import Observation
from shipworthy.model.op import Clock, Op, SystemClock
from shipworthy.model.policy import Bodies, Budget, Mode, Role, Snapshot, Team, Tenant, TokenCaps, UseCase
from shipworthy.model.route import Ability, Strategy
from shipworthy.ports import ControlPlane

TOKENS = {
    "northwind-admin": Principal("northwind", "ann", issuer="https://login.example", groups=("platform",)),
    "southwind-admin": Principal("southwind", "sam", issuer="https://login.example", groups=("platform",)),
    "northwind-agent": Principal("northwind", "alice", issuer="https://login.example", groups=("support-agents",)),
    "operator": Principal("", "olga", issuer="https://login.example", groups=("platform-ops",), operator=True),
}


class MemoryPlane(Struct, frozen=True):
    """The plane, and what a test may look into."""

    plane: ControlPlane
    exchanges: MemoryExchanges
    corrections: MemoryCorrections
    books: MemoryBooks
    acts: MemoryActs
    pauses: MemoryPauses
    keys: MemoryKeys
    alerts: MemoryAlertLog
    seen: list[Observation]


def memory_plane(*rows: Row, clock: Clock | None = None) -> MemoryPlane:
    """The plane over ``rows``; ``TOKENS`` are the credentials that it knows."""
    acts, exchanges, seen = MemoryActs(), MemoryExchanges(*rows), list[Observation]()
    keys, pauses, alerts = MemoryKeys(acts), MemoryPauses(acts), MemoryAlertLog()
    corrections = MemoryCorrections(exchanges, acts)
    books = MemoryBooks(exchanges, corrections)
    snapshot = a_snapshot()

    async def identify(op: Op, credentials: Credentials) -> Principal:
        if not credentials.bearer:
            raise Refusal("identify.missing_credential")
        principal = TOKENS.get(credentials.bearer)
        if principal is None:
            raise Refusal("identify.malformed")
        return principal

    plane = ControlPlane(
        snapshot=lambda: snapshot,
        identify=identify,
        keys=keys,
        acts=acts,
        exchanges=exchanges,
        pauses=pauses,
        corrections=corrections,
        books=books,
        alerts=alerts,
        pepper=b"p" * 32,
        cookie_key=b"c" * 32,
        clock=clock or SystemClock(),
        observe=seen.append,
    )
    return MemoryPlane(plane, exchanges, corrections, books, acts, pauses, keys, alerts, seen)


def a_snapshot() -> Snapshot:
    """Two tenants with the same roles and one use case each knows."""
    use_case = UseCase(
        name="support",
        job="Answer a customer's question from the handbook.",
        owner="support",
        risk="limited",
        data_class=1,
        mode=Mode.ENFORCE,
        tokens=TokenCaps(16_000, 4_000, 1_000),
        strategy=Strategy.FIRST,
        models=(),
        weights=(),
        rules=(),
        abilities=frozenset({Ability.CHAT}),
    )
    return Snapshot(
        name="northwind",
        environment="production",
        digest="a1b2c3d4" * 8,
        data_classes=("public", "internal", "confidential", "restricted"),
        demands=MappingProxyType({}),
        tenants=MappingProxyType({name: _tenant(name) for name in ("northwind", "southwind")}),
        use_cases=MappingProxyType({"support": use_case, "faq": use_case}),
        models=MappingProxyType({}),
        providers=MappingProxyType({}),
        operator_groups=frozenset({"platform-ops"}),
        strict=True,
        retention_days=2555,
        bodies=Bodies(),
    )


def _tenant(name: str) -> Tenant:
    team = Team("support")
    nobody: frozenset[str] = frozenset()
    return Tenant(
        name=name,
        roles=(
            Role("agent", team, frozenset({"support-agents"}), False, frozenset({"support"}), 1),
            Role("backend", team, nobody, True, frozenset({"support"}), 1),
            Role("platform", team, nobody, True, frozenset({"*"}), 3, admin=True),
            Role("admin", team, frozenset({"platform"}), False, frozenset({"*"}), 3, admin=True),
        ),
        teams=MappingProxyType({"support": team}),
        aliases=MappingProxyType({"gpt-4o": "support"}),
        budget=Budget(10_000 * 10**9, Period.MONTH, ZoneInfo("Europe/Berlin")),
    )

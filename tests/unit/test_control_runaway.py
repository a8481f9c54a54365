"""A look at who runs away, over a watch that says what the test wants: narrowest stop first, bounded, nothing said twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set

from msgspec.structs import replace

from shipworthy.control.runaway import FOLDS_MAX, Unstopped, catch_up, look, watched
from shipworthy.kit.clock import HandClock
from shipworthy.kit.memory_pauses import MemoryPauses
from shipworthy.kit.memory_plane import a_snapshot
from shipworthy.kit.memory_record import MemoryActs
from shipworthy.model.observation import Observation, RunawayPaused
from shipworthy.model.op import Op
from shipworthy.model.policy import Runaway, Watched
from shipworthy.model.runaway import Normal, Spender, Suspect
from shipworthy.ports import Folded

RULE = Runaway(10, 1_000, 1, 60, (Watched.SESSION, Watched.PRINCIPAL))
RULES = {"acme": RULE}


def spent(nano: int, principal: str = "i#ada", session: str = "") -> Suspect:
    kind = Watched.SESSION if session else Watched.PRINCIPAL
    return Suspect(Spender("acme", kind, principal, session), nano)


class Scene:
    """A SpendWatch with a script."""

    def __init__(self, *suspects: Suspect, standing_max: int = 10, folds: Sequence[Folded] = (Folded(True),)) -> None:
        self.clock, self.seen = HandClock(), list[Observation]()
        self.pauses = MemoryPauses(MemoryActs(), standing_max)
        self.unstopped = Unstopped()
        self.found, self.folds, self.folded = suspects, list(folds), 0

    def look(self, rules: Mapping[str, Runaway] = RULES) -> list[str]:
        asyncio.run(look(self.op(), self, self.pauses, rules, self.unstopped))
        return [pause.name for pause in self.pauses.pauses.values()]

    def op(self) -> Op:
        return Op.for_job(self.clock, self.seen.append)

    async def fold(self, rules: Mapping[str, Runaway]) -> Folded:
        self.folded += 1
        return self.folds.pop(0) if len(self.folds) > 1 else self.folds[0]

    async def suspects(self, rules: Mapping[str, Runaway]) -> Sequence[Suspect]:
        return self.found

    async def normals(self, op: Op, rules: Mapping[str, Runaway], whose: Set[Spender]) -> Mapping[Spender, Normal]:
        return {spender: Normal(100, 200) for spender in whose if spender.principal}

    async def forget(self) -> None: ...


def test_what_a_paused_session_spent_is_not_its_principals() -> None:
    assert Scene(spent(9_000, session="s-1"), spent(10_500)).look() == ["s-1"]
    assert Scene(spent(9_000, session="s-1"), spent(13_000)).look() == ["s-1", "i#ada"]
    assert Scene(spent(9_000, session="s-1"), spent(13_000, "i#bob")).look() == ["s-1", "i#bob"]
    assert Scene(spent(9_000, session="s-1"), spent(2_500)).look(
        {"acme": replace(RULE, watch=(Watched.PRINCIPAL,))}
    ) == ["i#ada"]


def test_nobody_is_judged_by_sums_that_are_behind_or_somebody_elses() -> None:
    assert Scene(spent(9_000), folds=[Folded(False)]).look() == []
    behind = Scene(spent(9_000), folds=[Folded(True, behind=True)])
    assert behind.look() == []
    assert behind.folded == FOLDS_MAX
    assert Scene(spent(9_000), folds=[Folded(True, behind=True), Folded(True)]).look() == ["i#ada"]


def test_a_look_catches_up_for_a_second_at_most() -> None:
    scene = Scene(folds=[Folded(True, behind=True)])

    class Slow(HandClock):
        def monotonic_ns(self) -> int:
            self.pass_s(0.3)
            return super().monotonic_ns()

    scene.clock = Slow()
    assert asyncio.run(catch_up(scene.op(), scene, RULES)) is False
    assert scene.folded < 6


def test_no_rule_costs_nothing() -> None:
    scene = Scene(spent(9_000))
    assert scene.look({}) == []
    assert scene.folded == 0


def test_what_cannot_be_stopped_is_said_once_a_minute() -> None:
    scene = Scene(spent(9_000, session="s-1"), standing_max=0)
    for _ in range(3):
        assert scene.look() == []
    scene.clock.pass_s(61)
    scene.look()
    said = [each for each in scene.seen if isinstance(each, RunawayPaused)]
    assert [each.stopped for each in said] == [False, False]


def test_normal_is_no_older_than_the_rows() -> None:
    snapshot = a_snapshot()
    tenants = {name: replace(tenant, runaway=RULE) for name, tenant in snapshot.tenants.items() if name == "northwind"}
    rules = watched(replace(snapshot, tenants={**snapshot.tenants, **tenants}, retention_days=30))
    assert {name: rule.normal_days for name, rule in rules.items()} == {"northwind": 30}

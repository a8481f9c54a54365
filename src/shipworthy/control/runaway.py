"""The runaway watch: whose spend rate exceeds its multiple of normal is paused, with the figures as the reason.

What counts as rate, normal and runaway is defined in ``model/runaway``. The narrowest stop comes first: what a session spent
that is paused does not count against its principal, so that its neighbours are served on. What a pause that was released had
seen does not count either: the window begins anew, and the same spike pauses nobody twice.

It needs nothing of the workers and keeps nothing in memory but normals: any number of control planes may look at once, one
of them does. A look reads what was recorded since the last one, whatever the size of the record.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from msgspec.structs import replace

from shipworthy.control.wording import usd
from shipworthy.model.observation import RunawayPaused
from shipworthy.model.op import Op, uuid7
from shipworthy.model.pause import RUNAWAY, PauseAsked, Placed, release_command
from shipworthy.model.policy import Runaway, Snapshot, Watched
from shipworthy.model.runaway import NOTHING, Normal, Spender, Suspect, Verdict, judge
from shipworthy.ports import AdminAct, PauseStore, SpendWatch

FOLD_NS_MAX = 1_000_000_000
"""How long a look may catch up with the record; the next one goes on."""
FOLDS_MAX = 120
"""How often, in stretches of a minute at most."""
SAID_NS = 60_000_000_000
SAID_MAX = 1_000


def watched(snapshot: Snapshot) -> dict[str, Runaway]:
    """The rules of the tenants that want one. No sum is kept longer than the rows that it is of."""
    days = snapshot.retention_days
    rules = {name: tenant.runaway for name, tenant in snapshot.tenants.items() if tenant.runaway is not None}
    return {name: replace(rule, normal_days=min(rule.normal_days, days)) for name, rule in rules.items()}


class Unstopped:
    """Who runs away though nothing stops them: said once a minute, not at each look."""

    def __init__(self) -> None:
        self._until_ns: OrderedDict[Spender, int] = OrderedDict()

    def begins(self, op: Op, whose: Spender) -> bool:
        now_ns = op.clock.monotonic_ns()
        if self._until_ns.get(whose, 0) > now_ns:
            return False
        self._until_ns[whose] = now_ns + SAID_NS
        self._until_ns.move_to_end(whose)
        if len(self._until_ns) > SAID_MAX:
            self._until_ns.popitem(last=False)
        return True


async def look(
    op: Op, watch: SpendWatch, pauses: PauseStore, rules: Mapping[str, Runaway], unstopped: Unstopped
) -> int:
    """Pauses whoever runs away now; returns how many. Raises StoreUnavailable."""
    if not rules or not await catch_up(op, watch, rules):
        return 0
    suspects = [suspect for suspect in await watch.suspects(rules) if _is_watched(rules, suspect)]
    asked = {name for suspect in suspects for name in (suspect.spender, suspect.spender.everyone)}
    normals = await watch.normals(op, rules, asked) if asked else {}
    paused_nano: dict[tuple[str, str], int] = {}  # of each principal's, by its sessions that are paused now
    count = 0
    for suspect in suspects:  # sessions come before principals
        whose = suspect.spender
        spent_nano = suspect.spent_nano
        if whose.kind is Watched.PRINCIPAL:
            spent_nano -= paused_nano.get((whose.tenant, whose.principal), 0)
        own, everyone = (normals.get(name, NOTHING) for name in (whose, whose.everyone))
        verdict = judge(rules[whose.tenant], spent_nano, own, everyone)
        if not verdict.runaway:
            continue
        if whose.kind is Watched.SESSION:
            place = (whose.tenant, whose.principal)
            paused_nano[place] = paused_nano.get(place, 0) + suspect.spent_nano
        count += await stop(op, pauses, unstopped, whose, reason(rules[whose.tenant], whose.kind, own, verdict))
    return count


async def catch_up(op: Op, watch: SpendWatch, rules: Mapping[str, Runaway]) -> bool:
    """Brings the sums up to now, within bounds; False while they are behind, or another control plane is at it."""
    began_ns = op.clock.monotonic_ns()
    for _ in range(FOLDS_MAX):
        folded = await watch.fold(rules)
        if not folded.ours:
            return False
        if not folded.behind:
            return True
        if op.clock.monotonic_ns() - began_ns > FOLD_NS_MAX:
            return False
    return False


async def stop(op: Op, pauses: PauseStore, unstopped: Unstopped, whose: Spender, why: str) -> int:
    """Pauses one; 1 when it is new. What cannot be paused, because the tenant has its fill, is said all the same."""
    asked = PauseAsked(
        tenant=whose.tenant,
        id=uuid7(op.clock.unix_ns()),
        kind=whose.kind,
        principal=whose.principal,
        session=whose.session,
        reason=why,
        by=RUNAWAY,
    )
    placed = await pauses.pause(asked, pause_act(op, asked, RUNAWAY))
    if placed is Placed.ALREADY or (placed is Placed.FULL and not unstopped.begins(op, whose)):
        return 0
    op.observe(
        RunawayPaused(
            tenant=whose.tenant,
            kind=whose.kind.value,
            principal=whose.principal,
            session=whose.session,
            reason=why,
            release=release_command(whose.tenant, whose.kind, whose.principal, whose.session),
            stopped=placed is Placed.PAUSED,
        )
    )
    return int(placed is Placed.PAUSED)


def pause_act(op: Op, asked: PauseAsked, actor: str) -> AdminAct:
    """The act that stands beside a pause."""
    facts = {"kind": asked.kind.value, "principal": asked.principal, "reason": asked.reason}
    if asked.session:
        facts["session"] = asked.session
    now_ns = op.clock.unix_ns()
    return AdminAct(
        id=uuid7(now_ns),
        at_unix_ns=now_ns,
        actor=actor,
        act="spend.pause",
        tenant=asked.tenant,
        target=str(asked.id),
        facts=facts,
    )


def reason(rule: Runaway, kind: Watched, own: Normal, verdict: Verdict) -> str:
    """Why it was paused, with every figure that decided."""
    minutes, normal = rule.window_minutes, verdict.normal_nano_per_min
    whose = {
        "own": f"its normal is {_rate(normal)}, the median of {own.windows} windows of the last {rule.normal_days} days",
        "tenant": f"it is new, and the normal of the tenant's {kind.value}s is {_rate(normal)}",
        "unknown": f"no normal is known yet, so that the least that counts, {_rate(normal)}, stands for it",
    }[verdict.whose]
    allowed = f"{rule.multiple} times that is {_rate(rule.multiple * normal)}"
    if verdict.ceiling_nano_per_min > rule.multiple * normal:
        allowed += f", below {_rate(verdict.ceiling_nano_per_min)} nobody is paused"
    spent_nano = verdict.spent_nano
    return f"spent ${usd(spent_nano)} in the last {minutes} min ({_rate(spent_nano // minutes)}); {whose}; {allowed}"


def _rate(nano_per_min: int) -> str:
    return f"${usd(nano_per_min)} a minute"


def _is_watched(rules: Mapping[str, Runaway], suspect: Suspect) -> bool:
    return suspect.spender.kind in rules[suspect.spender.tenant].watch

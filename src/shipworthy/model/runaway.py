"""When a spend rate is a runaway: a pure rule over integers.

*Rate*: what the record says a session or a principal was charged in the last ``window_minutes``, by the minute. Counted in
sixths of the window, whole ones only, so that never more than a window's spend is counted; what a sweeper presumed for a
worker that died is left out: nobody knows that it was spent.

*Normal*: the median rate over the windows of the last ``normal_days`` in which there was any spend, the running window left
out, and every window that touches a pause too, so that no runaway is learned. With fewer than WINDOWS_MIN such windows the
normal is the tenant's: the median over its windows of the median rate of all sessions, or principals, that spent in it.
Where even that is unknown, ``at_least`` itself is taken for normal: in a tenant's first hour nobody can tell what is
unusual.

*Runaway*: a rate above ``multiple`` × normal, and above ``at_least``.
"""

from __future__ import annotations

from msgspec import Struct

from shipworthy.model.policy import Runaway, Watched

WINDOWS_MIN = 12
"""So many windows make a normal: an hour of use, with windows of five minutes."""


class Spender(Struct, frozen=True):
    """Whose rate it is. ``session`` "" = the principal's; both "" = all of that kind in the tenant."""

    tenant: str
    kind: Watched
    principal: str
    session: str

    @property
    def everyone(self) -> Spender:
        return Spender(self.tenant, self.kind, "", "")


class Suspect(Struct, frozen=True):
    """Who spent more than the least in the running window, and how much."""

    spender: Spender
    spent_nano: int


class Normal(Struct, frozen=True):
    """The median rate over so many windows."""

    windows: int
    nano_per_min: int

    @property
    def known(self) -> bool:
        return self.windows >= WINDOWS_MIN


NOTHING = Normal(0, 0)


class Verdict(Struct, frozen=True):
    """Whether it is a runaway, and by which figures."""

    runaway: bool
    spent_nano: int
    ceiling_nano_per_min: int
    normal_nano_per_min: int
    whose: str  # own | tenant | unknown


def judge(rule: Runaway, spent_nano: int, own: Normal, everyone: Normal) -> Verdict:
    """The verdict on who spent ``spent_nano`` in the last ``rule.window_minutes``."""
    normal, whose = rule.at_least_nano_per_min, "unknown"
    if own.known:
        normal, whose = own.nano_per_min, "own"
    elif everyone.known:
        normal, whose = everyone.nano_per_min, "tenant"
    ceiling = max(rule.at_least_nano_per_min, rule.multiple * normal)
    return Verdict(spent_nano > ceiling * rule.window_minutes, spent_nano, ceiling, normal, whose)

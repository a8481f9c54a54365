"""What a firm has decided, linked: tenants, roles, use cases, budgets, rules. Built only by ``manifest/link``.

Names are objects here and no field can be wrong: whoever holds a ``Snapshot`` needs no further checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from zoneinfo import ZoneInfo

from msgspec import Struct

from shipworthy.model.money import Period
from shipworthy.model.route import Ability, Demand, Model, Provider, Strategy


class Mode(StrEnum):
    OBSERVE = "observe"  # decide and record; enforce only identity, isolation and money caps
    ENFORCE = "enforce"


class Budget(Struct, frozen=True):
    """Money per period, on the wall clock of ``zone``."""

    cap_nano: int
    per: Period
    zone: ZoneInfo
    alert_at_permille: tuple[int, ...] = ()  # ascending, 1 … 1000: passed when spent_nano × 1000 ≥ cap_nano × it
    on_exhausted: tuple[str, ...] = ()  # models that may serve on with what is left; () = refuse


class Limits(Struct, frozen=True, gc=False):
    """Counts per sliding minute, and requests at once; 0 = none."""

    requests_per_min: int = 0
    tokens_per_min: int = 0
    concurrent: int = 0


class Level(Struct, frozen=True):
    """One row of counters that a request counts against.

    ``key`` is the canonical list of dimensions: ``tenant``, ``team=support``, ``team=support/use_case=faq``,
    ``principal=…``, ``end_user=…``. Levels are always handled in the order of ``key``: the lock order.
    """

    key: str
    budget: Budget | None = None
    limits: Limits | None = None


class Team(Struct, frozen=True):
    name: str
    budget: Budget | None = None
    limits: Limits | None = None


class Role(Struct, frozen=True):
    name: str
    team: Team
    groups: frozenset[str]
    keys: bool  # service keys may carry this role
    use_cases: frozenset[str]  # names; {"*"} = all
    clearance: int  # rank
    admin: bool = False
    may_assert_end_user: bool = False
    each_end_user: Budget | None = None


class Watched(StrEnum):
    """Whose spend rate is compared with its own normal."""

    SESSION = "session"
    PRINCIPAL = "principal"


class Runaway(Struct, frozen=True, gc=False):
    """When a spend rate is a runaway: ``multiple`` times normal, and at least ``at_least_nano_per_min``.

    The rate is the mean over the last ``window_minutes``; normal is the median rate of the windows of the last
    ``normal_days`` in which there was any spend. Exactly: ``model/runaway``.
    """

    multiple: int
    at_least_nano_per_min: int
    window_minutes: int
    normal_days: int
    watch: tuple[Watched, ...]


class Tenant(Struct, frozen=True):
    name: str
    roles: tuple[Role, ...]  # in the manifest's order: the first that matches and grants is taken
    teams: Mapping[str, Team]
    aliases: Mapping[str, str]  # what a client names → use case
    budget: Budget | None = None
    limits: Limits | None = None
    runaway: Runaway | None = None


Condition = Callable[[Mapping[str, object]], bool]
"""A compiled CEL expression over flat facts (``request.data_class`` …); raises on anything undecidable."""


class Rule(Struct, frozen=True):
    """When ``when`` holds, only ``models`` may serve. Rules are tried in order; the first that holds decides."""

    id: str
    expression: str
    when: Condition
    models: frozenset[str]


class TokenCaps(Struct, frozen=True, gc=False):
    input_max: int
    passages_max: int
    output_max: int


class UseCase(Struct, frozen=True):
    """The unit of governance."""

    name: str
    job: str
    owner: str
    risk: str
    data_class: int  # rank
    mode: Mode
    tokens: TokenCaps
    strategy: Strategy
    models: tuple[Model, ...]
    weights: tuple[float, ...]  # same length as models; used by `weighted`
    rules: tuple[Rule, ...]
    abilities: frozenset[Ability]
    limits: Limits | None = None
    budget: Budget | None = None
    drain_seconds: float = 10.0


class Bodies(Struct, frozen=True, gc=False):
    """How bodies are kept: their own retention and byte cap. ``bytes_max`` 0 keeps none."""

    retention_days: int = 30
    bytes_max: int = 262_144


class Snapshot(Struct, frozen=True):
    """The whole deployment as one trusted value. A request keeps the one it began with."""

    name: str
    environment: str
    digest: str  # sha256 of everything that the manifest and its files say, hex
    data_classes: tuple[str, ...]  # lowest first: rank = index
    demands: Mapping[int, Demand]  # by rank; a class also inherits the demands of the classes below it
    tenants: Mapping[str, Tenant]
    use_cases: Mapping[str, UseCase]
    models: Mapping[str, Model]
    providers: Mapping[str, Provider]
    operator_groups: frozenset[str]
    strict: bool  # audit durability
    retention_days: int
    bodies: Bodies
    region: str = ""

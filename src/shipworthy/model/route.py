"""Models, the providers that serve them, what a provider promises, and the order in which models are tried."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property

from msgspec import Struct

from shipworthy.model.money import Price, Usage


class Ability(StrEnum):
    CHAT = "chat"
    EMBED = "embed"
    RERANK = "rerank"


class Network(StrEnum):
    """Where a provider stands, most exposed first; ``local`` is this machine."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOCAL = "local"


class Boundary(Struct, frozen=True):
    """What a provider promises. Absent promises are the worst case: ``None`` retention is unlimited."""

    regions: tuple[str, ...] = ()
    network: Network = Network.PUBLIC
    trains_on_data: bool = True
    retention_days: int | None = None
    agreement_id: str = ""
    agreement_expires: str = ""  # ISO date; past it the agreement no longer counts


class Demand(Struct, frozen=True):
    """What a data class demands of a provider (``requirements.boundary``). ``None`` and () demand nothing."""

    regions: tuple[str, ...] = ()
    network: tuple[Network, ...] = ()
    trains_on_data: bool | None = None
    retention_days_max: int | None = None
    agreement: bool = False


class Timeouts(Struct, frozen=True, gc=False):
    connect_ms: int = 2_000
    first_token_ms: int = 30_000
    total_ms: int = 300_000


class Quota(Struct, frozen=True, gc=False):
    """What a provider grants its key a sliding minute; 0 = unstated. A model is left before its provider's 429."""

    requests_per_min: int = 0
    tokens_per_min: int = 0


class Provider(Struct, frozen=True):
    """An endpoint that serves models. ``settings`` are its adapter's own, already validated and linked."""

    name: str
    kind: str
    boundary: Boundary
    timeouts: Timeouts
    concurrent_max: int
    settings: object
    limits: Quota | None = None  # of the key that we call it with, whichever tenant asks


class Model(Struct, frozen=True):
    """One upstream model with price, abilities and origin."""

    name: str
    provider: Provider
    upstream: str
    abilities: frozenset[Ability]
    origin: str
    modalities: frozenset[str]
    context_tokens_max: int
    output_tokens_max: int
    price: Price
    chars_per_token: float  # calibrated ratio for counting when the provider reports no usage
    template_tokens: int = 0  # what the provider's own prompt adds at most (worked examples of a base model)


class Lineup(tuple[Model, ...]):
    """Models in an order, and what they have in common: worked out once, for all who come with the same ones."""

    @cached_property
    def by_name(self) -> dict[str, Model]:
        return {model.name: model for model in self}

    @cached_property
    def output_tokens_max(self) -> int:
        """What the ablest of them gives."""
        return max(model.output_tokens_max for model in self)

    @cached_property
    def context_tokens_max(self) -> int:
        return max(model.context_tokens_max for model in self)

    @cached_property
    def template_tokens(self) -> int:
        """The most that one of their own prompts adds."""
        return max(model.template_tokens for model in self)

    @cached_property
    def total_ms(self) -> int:
        """How long all of them together may take, one after the other."""
        return sum(model.provider.timeouts.total_ms for model in self)


class Strategy(StrEnum):
    FIRST = "first"
    WEIGHTED = "weighted"
    CHEAPEST = "cheapest"
    FASTEST = "fastest"
    LEAST_BUSY = "least-busy"


class Candidate(Struct, frozen=True):
    """A model that was considered: taken into the order, or left and why. ``score`` is the strategy's figure."""

    model: str
    provider: str
    taken: bool
    reason: str  # "first in order", "boundary: regions [us] not in [eu]", "circuit open", "rule stays-home", …
    score: float = 0.0


class Route(Struct, frozen=True):
    """The order in which models are tried, and what was considered on the way there."""

    models: tuple[Model, ...]
    candidates: tuple[Candidate, ...]
    strategy: Strategy
    rules: tuple[str, ...] = ()


class Attempt(Struct, frozen=True):
    """One call of one model, as the record keeps it."""

    number: int
    model: str
    provider: str
    upstream: str
    started_ns: int  # since the exchange began
    duration_ns: int
    first_token_ns: int = 0  # since the attempt began; 0 = none came
    failure: str = ""  # FailureKind, "" when it served
    status: int = 0
    detail: str = ""
    sent: bool = True
    usage: Usage | None = (
        None  # what this attempt is charged for, when it failed and the provider may bill all the same
    )


def unmet(boundary: Boundary, demand: Demand, today: str) -> str:
    """Why ``boundary`` does not satisfy ``demand`` on the ISO date ``today``; "" when it does."""
    if demand.network and boundary.network not in demand.network:
        return f"network {boundary.network} is not one of {', '.join(demand.network)}"
    if demand.regions and not (boundary.regions and set(boundary.regions) <= set(demand.regions)):
        return f"regions [{', '.join(boundary.regions)}] are not within [{', '.join(demand.regions)}]"
    if demand.trains_on_data is False and boundary.trains_on_data:
        return "the provider may train on the data"
    if demand.retention_days_max is not None and (
        boundary.retention_days is None or boundary.retention_days > demand.retention_days_max
    ):
        kept = "an unstated number of" if boundary.retention_days is None else boundary.retention_days
        return f"the provider keeps data {kept} days, {demand.retention_days_max} allowed"
    if demand.agreement and not boundary.agreement_id:
        return "no agreement with the provider is on file"
    if demand.agreement and boundary.agreement_expires and boundary.agreement_expires < today:
        return f"the agreement {boundary.agreement_id} expired on {boundary.agreement_expires}"
    return ""

"""``use_cases``, and what they refer to that is not built yet: corpora, guards, prompts, evals."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from shipworthy.manifest.reference import wrong
from shipworthy.manifest.shape_identity import BudgetShape, LimitsShape
from shipworthy.manifest.shape_models import Tokens
from shipworthy.manifest.shape_values import (
    NOT_AVAILABLE,
    ClassName,
    Count,
    Days,
    Name,
    Number,
    Shape,
    Text,
    Unbuilt,
    Word,
)

Action = Literal["allow", "flag", "redact", "tokenise", "private", "review", "refuse"]


class SourceShape(Shape):
    """Where a corpus comes from."""

    kind: Word
    path: Word | None = None


class CorpusShape(Shape):
    """Documents that may be retrieved."""

    source: SourceShape
    data_class: ClassName | None = None
    refresh: Word | None = None
    retention_days: Days | None = None


def _acted(value: object) -> object:
    return {"action": value} if isinstance(value, str) else value


class GuardShape(Shape):
    """What one guard does with a finding."""

    action: Action
    retrieved: Action | None = None
    hosts: list[Word] = []


Guard = Annotated[GuardShape, BeforeValidator(_acted, json_schema_input_type=Action | GuardShape)]


class GuardsShape(Shape):
    """A set of guards."""

    pii: Guard | None = None
    secrets: Guard | None = None
    injection: Guard | None = None
    exfiltration: Guard | None = None


class DoneShape(Shape):
    """What a right answer is. Documentation: it is in the digest, and rules nothing."""

    right: Text | None = None
    wrong: Text | None = None
    refuse: Text | None = None


class EnvelopeShape(Shape):
    """The performance that the use case is sized for."""

    ttft_p95_ms: Count | None = None
    latency_p95_ms: Count | None = None
    concurrent: Count | None = None


def _no_passages(value: int) -> int:
    if value:
        raise wrong(
            "not_available", NOT_AVAILABLE, wanted="0, or this key left out", hint="remove it until it is available"
        )
    return value


class TokensShape(Shape):
    """What one request may use. A client that asks for more is refused."""

    input_max: Tokens | None = None
    passages_max: Annotated[int, Field(ge=0, le=100_000_000), AfterValidator(_no_passages)] = 0
    output_max: Tokens | None = None


def _weighed(value: object) -> object:
    return {"model": value} if isinstance(value, str) else value


class RoutedModel(Shape):
    """A model of a route, as its name, or with its share of the traffic: ``{model: NAME, weight: 3}``."""

    model: Name
    weight: Annotated[Number, Field(gt=0, le=1_000_000)] | None = None


Routed = Annotated[RoutedModel, BeforeValidator(_weighed, json_schema_input_type=Name | RoutedModel)]


class RuleShape(Shape):
    """When ``when`` (CEL) holds, only ``models`` may serve. Tried in order; the first that holds decides."""

    id: Name
    when: Annotated[str, Field(min_length=1, max_length=2048)]
    models: Annotated[list[Name], Field(min_length=1, max_length=64)]


class RouteShape(Shape):
    """Which models may serve, and in which order."""

    strategy: Literal["first", "weighted", "cheapest", "fastest", "least-busy"] = "first"
    models: Annotated[list[Routed], Field(min_length=1, max_length=64)]
    rules: Annotated[list[RuleShape], Field(max_length=64)] = []


class OnDisconnect(Shape):
    """How long a provider is read on after the client has left."""

    drain_seconds: Annotated[Number, Field(ge=0, le=600)] = 10.0


class UseCaseShape(Shape):
    """The unit of governance. Without ``data_class`` it is of the most sensitive one."""

    job: Text
    done: DoneShape = DoneShape()
    owner: Word
    risk: Literal["minimal", "limited", "high", "unstated"] = "unstated"
    data_class: ClassName | None = None
    mode: Literal["observe", "enforce"] = "enforce"
    envelope: Unbuilt[EnvelopeShape] | None = None
    prompt: Unbuilt[Word] | None = None
    knowledge: Unbuilt[list[Name]] | None = None
    guards: Unbuilt[Name] | None = None
    tokens: TokensShape = TokensShape()
    route: RouteShape
    limits: LimitsShape | None = None
    budget: BudgetShape | None = None
    on_disconnect: OnDisconnect = OnDisconnect()
    evals: Unbuilt[Word] | None = None

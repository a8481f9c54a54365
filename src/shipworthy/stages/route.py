"""route: the order in which the permitted models are tried.

=============  ==================================================================================================
strategy       models are ordered by
=============  ==================================================================================================
first          the manifest's order
weighted       drawing without replacement with the manifest's weights, seeded by the request's id
cheapest       expected cost of this request: (characters / the model's ratio) × input price + the use case's mean
               output tokens at this model (until one is known: the output cap) × output price
fastest        decayed median of time to first token (half-life 60 s); a model without a sample comes first, and one
               request in twenty tries the others first, so that a slow model can show that it has recovered
least-busy     requests in flight at this worker ÷ the provider's concurrent_max
=============  ==================================================================================================

A model whose circuit is open goes to the end of the candidates as left; when none is closed the request is refused with the
shortest wait. Ties keep the manifest's order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from shipworthy.model.chat import Request
from shipworthy.model.errors import Refusal
from shipworthy.model.fleet import Fleet
from shipworthy.model.identity import Grant
from shipworthy.model.op import Op
from shipworthy.model.policy import UseCase
from shipworthy.model.prompt import Fitted
from shipworthy.model.route import Candidate, Model, Route, Strategy
from shipworthy.stages.estimate import expected_cost

EXPLORE_ONE_IN = 20

Scored = list[tuple[float, Model]]


def make_route(fleet: Fleet) -> Callable[[Op, Grant, Request, Fitted], Route]:
    """The stage, over what this worker has learned of its models."""

    def route(op: Op, grant: Grant, request: Request, fitted: Fitted) -> Route:
        now_ns = op.clock.monotonic_ns()
        fleet.arrived()
        open_now = [model for model in grant.permitted if not fleet.of(model).circuit.admits(now_ns)]
        closed = [model for model in grant.permitted if model not in open_now]
        forbidden = tuple(candidate for candidate in grant.considered.candidates if not candidate.taken)
        left = tuple(Candidate(m.name, m.provider.name, False, "circuit open") for m in open_now)
        if not closed:
            wait_s = min(fleet.of(model).circuit.retry_after_s(now_ns) for model in open_now)
            seen = replace(grant.considered, candidates=(*left, *forbidden))
            raise Refusal("route.unavailable", retry_after_s=max(1.0, wait_s), considered=seen)
        scored = order(grant.use_case, closed, request, fitted, fleet, op)
        taken = tuple(
            Candidate(model.name, model.provider.name, True, _reason(grant.use_case.strategy, place), round(score, 6))
            for place, (score, model) in enumerate(scored)
        )
        return Route(
            models=tuple(model for _, model in scored),
            candidates=(*taken, *left, *forbidden),
            strategy=grant.use_case.strategy,
            rules=grant.considered.rules,
        )

    return route


def order(use_case: UseCase, models: Sequence[Model], request: Request, fitted: Fitted, fleet: Fleet, op: Op) -> Scored:
    """``models`` with the strategy's figure, best first."""
    draw = random.Random(op.id.int)  # noqa: S311  # a fair draw that the record can repeat, not a secret
    match use_case.strategy:
        case Strategy.FIRST:
            return [(float(place), model) for place, model in enumerate(models)]
        case Strategy.WEIGHTED:
            weights = dict(zip((m.name for m in use_case.models), use_case.weights, strict=True))
            keyed = [(draw.random() ** (1.0 / weights[m.name]) if weights[m.name] else 0.0, m) for m in models]
            return sorted(keyed, key=lambda pair: -pair[0])
        case Strategy.CHEAPEST:
            return _ascending([(_cost(model, request, fitted, fleet), model) for model in models])
        case Strategy.FASTEST:
            timed = [(fleet.of(model).first_token_ms.value_ms() or 0.0, model) for model in models]
            ranked = _ascending(timed)
            if len(ranked) > 1 and draw.randrange(EXPLORE_ONE_IN) == 0:
                place = draw.randrange(1, len(ranked))
                ranked.insert(0, ranked.pop(place))
            return ranked
        case Strategy.LEAST_BUSY:
            return _ascending([(_busy(model, fleet), model) for model in models])


def _ascending(scored: Scored) -> Scored:
    return sorted(scored, key=lambda pair: pair[0])  # stable: ties keep the manifest's order


def _cost(model: Model, request: Request, fitted: Fitted, fleet: Fleet) -> float:
    mean = fleet.of(model).output_tokens_mean
    output = fitted.output_tokens_max if mean is None else min(mean, fitted.output_tokens_max)
    return expected_cost(model, request, output * request.choices) / 1e9


def _busy(model: Model, fleet: Fleet) -> float:
    return fleet.provider_in_flight(model.provider.name) / model.provider.concurrent_max


def _reason(strategy: Strategy, place: int) -> str:
    return f"{strategy}: first choice" if place == 0 else f"{strategy}: fallback {place}"

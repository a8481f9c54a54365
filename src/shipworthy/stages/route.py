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

A model that the hold does not cover, or whose circuit is open, goes to the end of the candidates as left; when none is
closed the request is refused with the shortest wait. Ties keep the manifest's order. Then the hold is trimmed to what may
really run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache

from msgspec.structs import replace

from shipworthy.model.chat import Request
from shipworthy.model.errors import Refusal
from shipworthy.model.fleet import Fleet
from shipworthy.model.identity import Grant
from shipworthy.model.ledger import Hold
from shipworthy.model.op import Op
from shipworthy.model.policy import UseCase
from shipworthy.model.prompt import Fitted
from shipworthy.model.route import Candidate, Model, Route, Strategy
from shipworthy.ports import Ledger
from shipworthy.stages.estimate import ceiling_output, dearest_cost, expected_cost

EXPLORE_ONE_IN = 20
TAKEN_MAX = 1_024
"""Candidates that are kept for the next request: with most strategies few differ."""

Scored = list[tuple[float, Model]]


def make_route(fleet: Fleet, ledger: Ledger) -> Callable[[Op, Grant, Hold, Request, Fitted], Route]:
    """The stage, over what this worker has learned of its models."""

    def route(op: Op, grant: Grant, hold: Hold, request: Request, fitted: Fitted) -> Route:
        now_ns = op.clock.monotonic_ns()
        fleet.arrived()
        closed, left = sift(grant, hold, fleet, now_ns)
        if not closed:
            waits_s = [
                fleet.of(m).circuit.retry_after_s(now_ns) for m in grant.permitted if m.name not in hold.uncovered
            ]
            seen = replace(grant.considered, candidates=left)
            raise Refusal("route.unavailable", retry_after_s=max(1.0, min(waits_s)), considered=seen)
        strategy = grant.use_case.strategy
        scored = order(grant.use_case, closed, request, fitted, fleet, op)
        taken = [
            _taken(model.name, model.provider.name, strategy, place, score)
            for place, (score, model) in enumerate(scored)
        ]
        models = tuple([model for _, model in scored])
        if len(models) < len(grant.permitted) or smaller(request, fitted, hold):
            ledger.trim(op, hold, dearest_cost(request, fitted.input_tokens, fitted.output_tokens_max, models))
        return Route(models, (*taken, *left), strategy, grant.considered.rules)

    return route


def smaller(request: Request, fitted: Fitted, hold: Hold) -> bool:
    """Whether what will be sent can use less than was held for the same models."""
    held, output = hold.estimate, ceiling_output(request, fitted.output_tokens_max)
    return fitted.input_tokens < held.input_tokens or output < held.output_tokens


def sift(grant: Grant, hold: Hold, fleet: Fleet, now_ns: int) -> tuple[list[Model], tuple[Candidate, ...]]:
    """The permitted models that may be tried now, in the manifest's order; and every other one, with why it is left."""
    closed: list[Model] = []
    left: list[Candidate] = []
    for model in grant.permitted:
        if level := hold.uncovered.get(model.name):
            left.append(Candidate(model.name, model.provider.name, False, f"budget of {level} exhausted"))
        elif fleet.of(model).circuit.admits(now_ns):
            closed.append(model)
        else:
            left.append(Candidate(model.name, model.provider.name, False, "circuit open"))
    left += [candidate for candidate in grant.considered.candidates if not candidate.taken]
    return closed, tuple(left)


def order(use_case: UseCase, models: Sequence[Model], request: Request, fitted: Fitted, fleet: Fleet, op: Op) -> Scored:
    """``models`` with the strategy's figure, best first."""
    match use_case.strategy:
        case Strategy.FIRST:
            return [(float(place), model) for place, model in enumerate(models)]
        case Strategy.WEIGHTED:
            weights = dict(zip((m.name for m in use_case.models), use_case.weights, strict=True))
            draw = _fair_draw(op)
            keyed = [(draw.random() ** (1.0 / weights[m.name]) if weights[m.name] else 0.0, m) for m in models]
            return sorted(keyed, key=lambda pair: -pair[0])
        case Strategy.CHEAPEST:
            return _ascending([(_cost(model, request, fitted, fleet), model) for model in models])
        case Strategy.FASTEST:
            timed = [(fleet.of(model).first_token_ms.value_ms() or 0.0, model) for model in models]
            ranked = _ascending(timed)
            draw = _fair_draw(op)
            if len(ranked) > 1 and draw.randrange(EXPLORE_ONE_IN) == 0:
                place = draw.randrange(1, len(ranked))
                ranked.insert(0, ranked.pop(place))
            return ranked
        case Strategy.LEAST_BUSY:
            return _ascending([(_busy(model, fleet), model) for model in models])


def _fair_draw(op: Op) -> random.Random:
    """A draw that the record can repeat; no secret."""
    return random.Random(op.id.int)  # noqa: S311


def _ascending(scored: Scored) -> Scored:
    return sorted(scored, key=lambda pair: pair[0])  # stable: ties keep the manifest's order


def _cost(model: Model, request: Request, fitted: Fitted, fleet: Fleet) -> float:
    mean = fleet.of(model).output_tokens_mean
    output = fitted.output_tokens_max if mean is None else min(mean, fitted.output_tokens_max)
    return expected_cost(model, request, output * request.choices) / 1e9


def _busy(model: Model, fleet: Fleet) -> float:
    return fleet.provider_in_flight(model.provider.name) / model.provider.concurrent_max


@lru_cache(maxsize=TAKEN_MAX)
def _taken(model: str, provider: str, strategy: Strategy, place: int, score: float) -> Candidate:
    reason = f"{strategy}: first choice" if place == 0 else f"{strategy}: fallback {place}"
    return Candidate(model, provider, True, reason, round(score, 6))

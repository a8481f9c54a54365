"""route: what the hold does not cover is never tried, and the hold is trimmed to what may be."""

from __future__ import annotations

import pytest

from shipworthy.kit.builders import an_estimate, an_op
from shipworthy.kit.calls import a_chat
from shipworthy.kit.grants import a_grant, a_priced_model
from shipworthy.kit.ledger import MemoryLedger
from shipworthy.model.errors import Refusal
from shipworthy.model.fleet import Fleet
from shipworthy.model.ledger import Hold, Standing
from shipworthy.model.op import Op
from shipworthy.model.prompt import Fitted
from shipworthy.model.route import Route, Strategy
from shipworthy.stages.estimate import ceiling_cost
from shipworthy.stages.route import make_route

DEAR, CHEAP, FREE = a_priced_model("dear", 1_000_000, 100), a_priced_model("cheap", 900_000), a_priced_model("free", 0)
FITTED = Fitted(output_tokens_max=1_000, input_tokens=50, replace={})


class Trimmed(MemoryLedger):
    """A ledger that notes to what holds are trimmed."""

    amounts: list[int]

    def trim(self, op: Op, hold: Hold, amount_nano: int) -> None:
        self.amounts = [*getattr(self, "amounts", ()), amount_nano]


def routed(
    ledger: MemoryLedger, uncovered: dict[str, str], *open_models: str, strategy: Strategy = Strategy.FIRST
) -> Route:
    fleet, op = Fleet(0, lambda *_: None), an_op()
    for model in (DEAR, CHEAP, FREE):
        while model.name in open_models and fleet.of(model).circuit.admits(op.clock.monotonic_ns()):
            fleet.failed(model, "server_error", op.clock.monotonic_ns(), None)
    hold = Hold(op.id, "northwind", an_estimate(10**9, 10**6), (), Standing(), uncovered=uncovered)
    return make_route(fleet, ledger)(op, a_grant((DEAR, CHEAP, FREE), strategy=strategy), hold, a_chat(), FITTED)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_what_the_money_does_not_cover_is_left_with_its_reason(strategy: Strategy) -> None:
    route = routed(Trimmed(), {"dear": "use_case=faq"}, strategy=strategy)
    assert {model.name for model in route.models} == {"cheap", "free"}
    (left,) = [candidate for candidate in route.candidates if not candidate.taken]
    assert (left.model, left.reason) == ("dear", "budget of use_case=faq exhausted")


def test_the_hold_is_trimmed_to_the_dearest_model_within_its_own_output_cap() -> None:
    """`dear` can give 100 tokens only, so the cheaper one may cost more; what is left costs nothing."""
    ledger = Trimmed()
    routed(ledger, {})
    assert ledger.amounts == [ceiling_cost(CHEAP, 50, 1_000, 0)]
    routed(ledger, {}, "cheap")
    assert ledger.amounts[-1] == ceiling_cost(DEAR, 50, 100, 0)
    routed(ledger, {"dear": "tenant"}, "cheap")
    assert ledger.amounts[-1] == 0


def test_when_all_that_is_covered_is_down_the_wait_is_theirs() -> None:
    ledger = Trimmed()
    with pytest.raises(Refusal, match=r"route\.unavailable") as refused:
        routed(ledger, {"dear": "tenant", "cheap": "tenant"}, "free")
    assert refused.value.retry_after_s is not None
    said = {candidate.model: candidate.reason for candidate in refused.value.considered.candidates}  # type: ignore[attr-defined]
    assert said["free"] == "circuit open"
    assert said["dear"] == "budget of tenant exhausted"
    assert not hasattr(ledger, "amounts"), "nothing was trimmed for a route that does not exist"

"""call: fallback until the first delta, deadlines, places given back, and what a failed attempt may cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from shipworthy.kit.builders import an_estimate, an_op
from shipworthy.kit.calls import a_chat, a_model, a_provider, fitted, into
from shipworthy.kit.scripted import one_by_one
from shipworthy.model.chat import Delta, DeltaKind, Event, Reply, Take
from shipworthy.model.circuit import State
from shipworthy.model.errors import FailureKind, ProviderFailure, Refusal, StoreUnavailable
from shipworthy.model.fleet import Fleet
from shipworthy.model.ledger import Hold, Standing
from shipworthy.model.money import Component, Price, Usage
from shipworthy.model.op import Op
from shipworthy.model.prompt import Fitted
from shipworthy.model.route import Attempt, Model, Provider, Quota, Route, Strategy, Timeouts
from shipworthy.stages.call import make_call

HEAD, WORD, END = Event(b"head"), Event(b"word", deltas=(Delta(0, DeltaKind.TEXT, "hi", ()),)), Event(b"end", done=True)


class Script:
    """An upstream and its events: an event is yielded, an exception raised, a number waited."""

    def __init__(self, *acts: Event | BaseException | float, opening: BaseException | None = None) -> None:
        self.acts = list(acts)
        self.opening = opening
        self.opened = self.closed = 0
        self.caps: list[int] = []

    async def open(self, op: Any, model: Any, request: Any, fitted: Fitted) -> Script:
        self.opened += 1
        self.caps.append(fitted.output_tokens_max)
        if self.opening is not None:
            raise self.opening
        return self

    async def close(self) -> None:
        return

    def __aiter__(self) -> Script:
        return self

    async def each(self, take: Take) -> bool:
        return await one_by_one(self, take)

    async def __anext__(self) -> Event:
        while self.acts:
            match self.acts.pop(0):
                case Event() as event:
                    return event
                case BaseException() as trouble:
                    raise trouble
                case seconds:
                    await asyncio.sleep(seconds)  # type: ignore[arg-type]
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


class Ledger:
    def __init__(self) -> None:
        self.raised: list[int] = []
        self.refusing = False
        self.away = False
        self.deaf = False

    async def announce(self, op: Op, hold: Hold) -> None:
        if self.deaf:
            raise StoreUnavailable("store.slow")

    async def raise_to(self, op: Op, hold: Hold, amount_nano: int) -> Hold:
        if self.away:
            raise StoreUnavailable("store.slow")
        if self.refusing:
            raise Refusal("reserve.budget_exhausted", period="month", level="tenant")
        self.raised.append(amount_nano)
        return replace(hold, estimate=replace(hold.estimate, amount_nano=amount_nano))


class Quotas:
    """Of a provider's own limits: room for so many requests."""

    def __init__(self) -> None:
        self.room: dict[str, int] = {}
        self.away = False
        self.taken: list[tuple[str, int]] = []
        self.used_: list[tuple[int, bool]] = []

    async def take(self, op: Op, provider: Provider, tokens: int) -> Hold:
        if self.away:
            raise Refusal("reserve.store_unavailable")
        if not self.room.get(provider.name, 1):
            raise ProviderFailure(FailureKind.CAPACITY, "full", sent=False)
        self.taken.append((provider.name, tokens))
        return Hold(op.id, "@providers", an_estimate(0, tokens), (), Standing())

    def used(self, taken: Hold, tokens: int, *, sent: bool) -> None:
        self.used_.append((tokens, sent))


class World:
    def __init__(self, *scripts: Script, timeouts: Timeouts | None = None) -> None:
        self.scripts = scripts
        self.changes: list[tuple[str, str]] = []
        self.fleet = Fleet(0, lambda model, state, reason: self.changes.append((model.name, state)))
        self.ledger = Ledger()
        self.attempts: list[Attempt] = []
        self.observed: list[Any] = []
        self.op = an_op(self.observed)
        given = timeouts or Timeouts(connect_ms=100, first_token_ms=80, total_ms=300)
        self.models = tuple(self._model(f"m{place}", given) for place in range(len(scripts)))
        reach = {model.provider.name: script for model, script in zip(self.models, scripts, strict=True)}
        self.quotas = Quotas()
        self._call = make_call(reach, self.fleet, self.ledger, self.quotas)  # type: ignore[arg-type]

    def _model(self, name: str, timeouts: Timeouts) -> Model:
        return replace(a_model(replace(a_provider("x", None, timeouts), name=f"p-{name}")), name=name)

    async def call(self, *, amount_nano: int = 10**12, text: str = "Hello", stream: bool = True) -> Reply:
        request = a_chat(text, stream=stream)
        route = Route(self.models, (), Strategy.FIRST)
        hold = Hold(self.op.id, "t", an_estimate(amount_nano), (), Standing())
        return await self._call(self.op, route, request, fitted(request), hold, self.attempts)

    def idle(self) -> bool:
        return all(
            self.fleet.of(model).in_flight == 0 and self.fleet.provider_in_flight(model.provider.name) == 0
            for model in self.models
        )


def failure(
    kind: FailureKind = FailureKind.SERVER_ERROR, *, sent: bool = True, status: int | None = 500
) -> ProviderFailure:
    return ProviderFailure(kind, "no", sent=sent, status=status)


async def drained(reply: Reply) -> list[bytes]:
    found: list[Event] = []
    while await reply.events.each(into(found)):
        pass
    return [event.raw for event in found]


def run(scenario: Callable[[], Any]) -> Any:
    return asyncio.run(scenario())


def test_a_served_stream_gives_its_place_back_and_notes_one_attempt() -> None:
    async def scenario() -> None:
        world = World(Script(HEAD, WORD, END))
        reply = await world.call()
        assert await drained(reply) == [b"head", b"word", b"end"]
        await reply.events.aclose()
        assert world.idle()
        assert [(a.failure, a.model) for a in world.attempts] == [("", "m0")]
        assert world.attempts[0].first_token_ns > 0

    run(scenario)


@pytest.mark.parametrize("kind", sorted(set(FailureKind) - {FailureKind.REJECTED}))
def test_falls_back_on_every_failure_that_another_may_not_share(kind: FailureKind) -> None:
    async def scenario() -> None:
        world = World(Script(opening=failure(kind)), Script(WORD, END))
        reply = await world.call()
        assert reply.model.name == "m1"
        await drained(reply)
        assert [a.failure for a in world.attempts] == [kind.value, ""]
        assert world.idle()

    run(scenario)


def test_a_rejected_request_is_not_tried_elsewhere() -> None:
    async def scenario() -> None:
        world = World(Script(opening=failure(FailureKind.REJECTED, status=400)), Script(WORD, END))
        with pytest.raises(Refusal, match=r"call\.rejected"):
            await world.call()
        assert world.scripts[1].opened == 0
        assert world.fleet.of(world.models[0]).circuit.state is State.CLOSED

    run(scenario)


def test_what_a_provider_quotes_of_the_request_is_not_kept() -> None:
    """Neither in the record's plain columns, nor in the log, nor in the refusal."""

    async def scenario() -> None:
        quoting = ProviderFailure(
            FailureKind.REJECTED, "status 400: bad value 'my secret diagnosis'", sent=True, status=400
        )
        world = World(Script(opening=quoting))
        with pytest.raises(Refusal, match=r"call\.rejected") as refused:
            await world.call(text="my secret diagnosis")
        told = (world.attempts[0].detail, world.observed[-1].detail, refused.value.facts["why"])
        assert set(told) == {"status 400: bad value '[quoted]'"}

    run(scenario)


def test_nothing_is_retried_after_the_first_delta() -> None:
    async def scenario() -> None:
        world = World(Script(WORD, failure(FailureKind.BROKEN)), Script(WORD, END))
        reply = await world.call()
        with pytest.raises(ProviderFailure):
            await drained(reply)
        await reply.events.aclose()
        assert world.scripts[1].opened == 0
        assert [a.failure for a in world.attempts] == ["broken"]
        assert world.idle()

    run(scenario)


def test_a_slow_first_token_moves_on_and_may_be_charged_its_input() -> None:
    async def scenario() -> None:
        world = World(Script(HEAD, 5.0, WORD), Script(WORD, END))
        await drained(await world.call())
        first, second = world.attempts
        assert first.failure == "first_token_timeout"
        assert first.usage is not None
        assert first.usage.input > 0
        assert world.scripts[0].closed == 1
        assert second.failure == ""

    run(scenario)


def test_an_error_status_costs_nothing() -> None:
    async def scenario() -> None:
        world = World(Script(opening=failure(status=503)), Script(WORD, END))
        await drained(await world.call())
        assert world.attempts[0].usage is None

    run(scenario)


def test_the_total_deadline_cuts_a_stream() -> None:
    async def scenario() -> None:
        world = World(Script(WORD, 5.0, END))
        reply = await world.call()
        with pytest.raises(ProviderFailure) as caught:
            await drained(reply)
        assert caught.value.kind is FailureKind.TOTAL_TIMEOUT
        assert world.idle()

    run(scenario)


def test_a_stream_that_ends_early_is_broken() -> None:
    async def scenario() -> None:
        reply = await World(Script(WORD)).call()
        with pytest.raises(ProviderFailure, match="broken"):
            await drained(reply)

    run(scenario)


def test_a_further_attempt_needs_cover_for_what_the_earlier_may_cost() -> None:
    """Promise 2: no egress if the raise fails."""

    async def scenario() -> None:
        broken = failure(FailureKind.BROKEN, status=None)
        covered = World(Script(opening=broken), Script(WORD, END))
        await drained(await covered.call(amount_nano=1))
        assert covered.ledger.raised
        refused = World(Script(opening=broken), Script(WORD, END))
        refused.ledger.refusing = True
        with pytest.raises(Refusal, match=r"reserve\.budget_exhausted"):
            await refused.call(amount_nano=1)
        assert refused.scripts[1].opened == 0

    run(scenario)


def test_what_an_earlier_attempt_may_cost_is_covered_at_its_own_price() -> None:
    """A dear model that failed and a cheap one that answers: both bills fit the hold."""

    async def scenario() -> None:
        world = World(Script(opening=failure(FailureKind.BROKEN, status=None)), Script(WORD, END))
        dear = replace(world.models[0], price=Price({Component.INPUT: 10**12, Component.OUTPUT: 10**12}, "test"))
        world.models = (dear, world.models[1])
        await drained(await world.call(amount_nano=1))
        spent = world.attempts[0].usage
        assert spent is not None
        assert world.ledger.raised[0] >= sum(line.amount_nano for line in dear.price.lines(spent, "m0", 0))

    run(scenario)


def test_a_fallback_is_asked_for_no_more_than_it_can_give() -> None:
    async def scenario() -> None:
        world = World(Script(opening=failure()), Script(WORD, END))
        world.models = (world.models[0], replace(world.models[1], output_tokens_max=7))
        await drained(await world.call())
        assert [script.caps for script in world.scripts] == [[1_000], [7]]

    run(scenario)


def test_a_provider_that_hangs_for_its_whole_total_leaves_the_next_one_its_own() -> None:
    """A whole answer has no first token to wait for: only the total tells that its provider hangs."""

    async def scenario() -> None:
        world = World(Script(5.0, WORD), Script(0.08, WORD, END), timeouts=Timeouts(first_token_ms=100, total_ms=100))
        reply = await world.call(stream=False)
        await drained(reply)
        assert [attempt.failure for attempt in world.attempts] == ["first_token_timeout", ""]

    run(scenario)


def test_attempts_that_sent_nothing_spend_no_retries() -> None:
    """The budget bounds load on providers: whoever refused the connection bore none."""

    async def scenario() -> None:
        for _ in range(20):
            world = World(Script(opening=failure(FailureKind.CONNECT, sent=False, status=None)), Script(WORD, END))
            while world.fleet.may_retry(world.op.clock.monotonic_ns()):
                pass
            await drained(await world.call())

    run(scenario)


def test_a_store_that_is_away_lets_no_further_attempt_out() -> None:
    async def scenario() -> None:
        world = World(Script(opening=failure(FailureKind.BROKEN, status=None)), Script(WORD, END))
        world.ledger.away = True
        with pytest.raises(Refusal, match=r"reserve\.store_unavailable"):
            await world.call(amount_nano=1)
        assert world.scripts[1].opened == 0

    run(scenario)


def test_no_attempt_is_begun_for_a_client_that_left() -> None:
    async def scenario() -> None:
        world = World(Script(WORD, END))
        world.op.left = True
        with pytest.raises(Refusal):
            await world.call()
        assert world.scripts[0].opened == 0

    run(scenario)


@pytest.mark.parametrize("when", ["opening", "head", "unread", "midway"])
def test_cancelled_anywhere_the_place_is_given_back(when: str) -> None:
    async def scenario() -> None:
        acts: dict[str, tuple[Any, ...]] = {
            "opening": (9.0,), "head": (HEAD, 9.0), "unread": (WORD, END), "midway": (WORD, 9.0)
        }  # fmt: skip
        world = World(Script(*acts[when]), timeouts=Timeouts(first_token_ms=5_000, total_ms=5_000))
        task = asyncio.create_task(world.call())
        if when in ("opening", "head"):
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            reply = await task
            if when == "midway":
                reading = asyncio.create_task(drained(reply))
                await asyncio.sleep(0.02)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
            await reply.events.aclose()
        assert world.idle()
        assert world.scripts[0].closed >= 1
        assert len(world.attempts) == 1

    run(scenario)


def test_a_full_provider_is_passed_over() -> None:
    async def scenario() -> None:
        world = World(Script(WORD, END), Script(WORD, END))
        crowded = world.models[0]
        for _ in range(crowded.provider.concurrent_max):
            assert world.fleet.begin(crowded, 0) == ""
        reply = await world.call()
        assert reply.model.name == "m1"
        assert world.attempts[0].failure == "capacity"

    run(scenario)


def test_five_failures_open_the_circuit_and_say_so() -> None:
    async def scenario() -> None:
        world = World(Script(opening=failure()))
        for _ in range(5):
            with pytest.raises(Refusal, match=r"call\.failed"):
                await world.call()
            world.attempts.clear()
        assert world.changes == [("m0", "open")]
        with pytest.raises(Refusal):
            await world.call()
        assert world.attempts[0].failure == "capacity"

    run(scenario)


def limited(world: World) -> World:
    """Every provider with limits of its own."""
    world.models = tuple(
        replace(model, provider=replace(model.provider, limits=Quota(requests_per_min=1))) for model in world.models
    )
    return world


def test_a_provider_whose_own_limit_is_reached_is_passed_over_without_a_request() -> None:
    async def scenario() -> None:
        world = limited(World(Script(WORD, END), Script(WORD, replace(END, usage=Usage(input=7, output=5)))))
        world.quotas.room["p-m0"] = 0
        reply = await world.call()
        assert reply.model.name == "m1"
        await drained(reply)
        assert [(a.failure, a.sent) for a in world.attempts] == [("capacity", False), ("", True)]
        assert world.scripts[0].opened == 0
        assert world.quotas.used_ == [(12, True)]
        assert world.idle()

    run(scenario)


def test_what_was_not_sent_does_not_count_against_a_provider() -> None:
    async def scenario() -> None:
        world = limited(World(Script(opening=failure(FailureKind.CONNECT)), Script(WORD, END)))
        await drained(await world.call())
        assert [sent for _, sent in world.quotas.used_] == [failure(FailureKind.CONNECT).sent, True]
        assert [name for name, _ in world.quotas.taken] == ["p-m0", "p-m1"]

    run(scenario)


def test_without_the_store_nothing_is_sent_to_a_provider_that_has_limits() -> None:
    async def scenario() -> None:
        world = limited(World(Script(WORD, END)))
        world.quotas.away = True
        with pytest.raises(Refusal, match=r"reserve\.store_unavailable"):
            await world.call()
        assert world.attempts == []
        assert world.scripts[0].opened == 0
        assert world.idle()

    run(scenario)


def test_nothing_is_sent_before_the_store_can_know_of_it() -> None:
    async def scenario() -> None:
        world = World(Script(WORD, END))
        world.ledger.deaf = True
        with pytest.raises(Refusal, match=r"reserve\.store_unavailable"):
            await world.call()
        assert world.scripts[0].opened == 0
        assert world.idle()

    run(scenario)

"""call: the models in the route's order, until one gives a first delta. Afterwards nothing is retried.

Each attempt takes a place at its provider, is re-checked against the hold (a later attempt may be billed on top of an
earlier one), and keeps its own provider's deadlines: one that hangs for its whole total leaves the next one its own. A
client that has left gets no further attempt. Which failures may be charged: those after the request was sent and before the
provider answered with an error status, because such a provider may bill what it read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn

from msgspec.structs import replace

from shipworthy.model.chat import Event, Events, Reply, Request, Source, Take
from shipworthy.model.errors import RETRY_ELSEWHERE, FailureKind, ProviderFailure, Refusal, StoreUnavailable
from shipworthy.model.fleet import Fleet
from shipworthy.model.ledger import Hold
from shipworthy.model.money import Basis, Usage
from shipworthy.model.observation import AttemptFailed
from shipworthy.model.op import Op
from shipworthy.model.prompt import Fitted
from shipworthy.model.quoting import unquoted
from shipworthy.model.route import Attempt, Model, Provider, Route
from shipworthy.ports import Ledger, Quotas, Upstream
from shipworthy.stages.deadline import Deadline, Deadlines
from shipworthy.stages.estimate import ceiling_cost, ceiling_output, expected_input

HEAD_EVENTS_MAX = 64
"""Events without content that may come before the first delta."""

Call = Callable[[Op, Route, Request, Fitted, Hold, list[Attempt]], Awaitable[Reply]]


def make_call(upstreams: Mapping[str, Upstream], fleet: Fleet, ledger: Ledger, quotas: Quotas) -> Call:
    """The stage, over the providers that can be reached and what is known of them."""

    known: Deadlines | None = None

    def deadlines() -> Deadlines:
        nonlocal known
        if known is None or known.loop.is_closed():
            known = Deadlines(asyncio.get_running_loop())  # a system call before Python 3.12
        return known

    async def call(
        op: Op, route: Route, request: Request, fitted: Fitted, hold: Hold, attempts: list[Attempt]
    ) -> Reply:
        last: ProviderFailure | None = None
        for model in route.models:
            if op.left:
                break
            if attempts and any(attempt.sent for attempt in attempts) and not fleet.may_retry(op.clock.monotonic_ns()):
                break
            mine = _within(fitted, model)
            await _cover(op, ledger, hold, route, model, request, mine, attempts)
            attempt = _Attempt(op, model, request, fleet, quotas, attempts)
            try:
                return await attempt.start(upstreams[model.provider.name], mine, deadlines())
            except ProviderFailure as failure:
                last = failure
                if failure.kind not in RETRY_ELSEWHERE:
                    break
        raise _refusal(last)

    return call


def _within(fitted: Fitted, model: Model) -> Fitted:
    """``fitted`` for ``model``: a provider rejects a cap beyond what its model can give, and the rescue with it."""
    if fitted.output_tokens_max <= model.output_tokens_max:
        return fitted
    return replace(fitted, output_tokens_max=model.output_tokens_max)


async def _cover(
    op: Op, ledger: Ledger, hold: Hold, route: Route, model: Model, request: Request, fitted: Fitted,
    attempts: list[Attempt],
) -> None:  # fmt: skip
    """The hold covers one more attempt on top of what earlier ones may be billed, and the store knows of it; no egress
    without."""
    try:
        if not attempts:  # the hold was trimmed to the dearest model of the route, no further
            await ledger.announce(op, hold)
            return
        needed_nano = _needed(route, model, request, fitted, attempts)
        if needed_nano > hold.estimate.amount_nano:
            hold.estimate = (await ledger.raise_to(op, hold, needed_nano)).estimate
    except StoreUnavailable as away:
        raise Refusal("reserve.store_unavailable", detail=str(away), retry_after_s=5) from away


def _needed(route: Route, model: Model, request: Request, fitted: Fitted, attempts: list[Attempt]) -> int:
    """What must be held for an attempt at ``model`` and for what earlier ones may be billed; 0 = those cost nothing."""
    billed = [attempt for attempt in attempts if attempt.usage is not None]
    if not billed:
        return 0
    output = ceiling_output(request, fitted.output_tokens_max)
    named = {each.name: each for each in route.models}
    spent = sum(ceiling_cost(named[a.model], a.usage.input, a.usage.output, 0) for a in billed if a.usage is not None)
    return spent + ceiling_cost(model, fitted.input_tokens, output, request.images)


def _refusal(failure: ProviderFailure | None) -> Refusal:
    if failure is None:
        return Refusal("call.failed", why="nothing was tried: the client had left", retry_after_s=1)
    why = failure.detail or failure.kind.value
    match failure.kind:
        case FailureKind.REJECTED:
            return Refusal("call.rejected", why=why, detail=f"status {failure.status}", retryable=False)
        case FailureKind.FIRST_TOKEN_TIMEOUT | FailureKind.TOTAL_TIMEOUT:
            return Refusal("call.timeout", detail=why)
        case _:
            said = "it could not be reached" if failure.kind is FailureKind.CONNECT else failure.kind.value
            return Refusal("call.failed", why=said, detail=why, retry_after_s=failure.retry_after_s or 1)


class _Attempt:
    """One call of one model, from taking a place to the row that is kept of it; its events are the reply's."""

    __slots__ = (
        "_attempts", "_began_ns", "_deadline", "_events", "_first_ns", "_fleet", "_head", "_model", "_noted",
        "_op", "_quotas", "_request", "_started_ns", "_taken", "_tokens",
    )  # fmt: skip

    def __init__(
        self, op: Op, model: Model, request: Request, fleet: Fleet, quotas: Quotas, attempts: list[Attempt]
    ) -> None:
        self._op = op
        self._model = model
        self._request = request
        self._fleet = fleet
        self._quotas = quotas
        self._taken: Hold | None = None  # of the provider's own limits
        self._tokens = 0  # as much as is known to be used of it
        self._attempts = attempts
        self._began_ns = op.clock.monotonic_ns()
        self._started_ns = op.elapsed_ns()
        self._first_ns = 0
        self._deadline: Deadline | None = None
        self._noted = False
        self._head: Sequence[Event] = ()
        self._events: Events | None = None

    async def start(self, upstream: Upstream, fitted: Fitted, deadlines: Deadlines) -> Reply:
        """The reply, once its first delta is here. Raises ProviderFailure; the attempt is noted either way."""
        busy = self._fleet.begin(self._model, self._began_ns)
        if busy:
            failure = ProviderFailure(FailureKind.CAPACITY, busy, sent=False)
            self._note(failure)
            raise failure
        if self._model.provider.limits is not None:
            await self._take(self._model.provider, fitted)
        now_s = deadlines.loop.time()
        timeouts = self._model.provider.timeouts
        total_ms = timeouts.total_ms
        wait_ms = min(timeouts.first_token_ms, total_ms) if self._request.stream else total_ms
        deadline = self._deadline = deadlines.begin(now_s + wait_ms / 1000)
        try:
            with deadline:
                self._events = await upstream.open(self._op, self._model, self._request, fitted)
                self._head = await _until_first_delta(self._events)
        except BaseException as reason:  # noqa: BLE001  # a cancel too must give the place back
            if self._events is not None:
                await self._events.aclose()
            self._fail(reason)
        deadline.put_off(now_s + total_ms / 1000)
        self._first_ns = self._op.clock.monotonic_ns() - self._began_ns
        return Reply(self._model, len(self._attempts), self._request.stream, Source.MODEL, self)

    async def _take(self, provider: Provider, fitted: Fitted) -> None:
        """Of the provider's own limits, what this attempt may use. Raises ProviderFailure; the attempt is noted then."""
        self._tokens = expected_input(self._request, self._model) + ceiling_output(
            self._request, fitted.output_tokens_max
        )
        try:
            self._taken = await self._quotas.take(self._op, provider, self._tokens)
        except ProviderFailure as full:
            self._failed(full)
            raise
        except BaseException:  # a cancel too must give the place back; nothing was sent
            self._noted = True
            self._fleet.end(self._model)
            self._fleet.released(self._model)
            raise

    async def each(self, take: Take) -> bool:
        """As ``chat.Flow`` wants it. What ``take`` raises is no failure of the provider's."""
        trouble: list[BaseException] = []

        def hear(events: Sequence[Event]) -> bool:
            for event in events:
                if event.usage is not None or event.done:
                    self._seen(event)
            try:
                return take(events)
            except BaseException as reason:  # noqa: BLE001  # raised below
                trouble.append(reason)
                return False

        head, self._head = self._head, ()
        if (not head or hear(head)) and not self._noted:
            await self._listen(hear)
        if trouble:
            raise trouble[0]
        if self._noted:
            self._events = None  # the exchange outlives it, and is let go by another thread
        return not self._noted

    async def _listen(self, hear: Take) -> None:
        assert self._events is not None and self._deadline is not None
        try:
            with self._deadline:
                more = await self._events.each(hear)
            if not more and not self._noted:
                raise ProviderFailure(FailureKind.BROKEN, "the stream ended before it was done", sent=True)
        except BaseException as reason:  # noqa: BLE001  # a cancel too must give the place back
            self._fail(reason)

    def _seen(self, event: Event) -> None:
        """What ``event`` says of the attempt."""
        if event.usage is not None and event.usage.basis is Basis.REPORTED:
            self._fleet.of(self._model).learned_output(event.usage.output)
            self._tokens = event.usage.input + event.usage.output
        if event.done:
            self._succeeded()

    async def aclose(self) -> None:
        """Ends the attempt wherever it is; the provider sees its connection close unless the reply was complete."""
        self._released("abandoned")
        if self._events is not None:
            await self._events.aclose()

    def _succeeded(self) -> None:
        if not self._noted:
            self._fleet.end(self._model)
            self._fleet.succeeded(self._model, self._first_ns / 1e6, self._op.clock.monotonic_ns())
            self._note(None)

    def _released(self, reason: str) -> None:
        """The attempt ended for a reason of ours or the client's: nothing is learned of the provider."""
        if not self._noted:
            self._fleet.end(self._model)
            self._fleet.released(self._model)
            self._note(None, reason)

    def _fail(self, reason: BaseException) -> NoReturn:
        """Notes the failure and raises it: as ProviderFailure, or as it is when it is no provider's fault."""
        if isinstance(reason, TimeoutError):
            late = FailureKind.TOTAL_TIMEOUT if self._first_ns else FailureKind.FIRST_TOKEN_TIMEOUT
            self._failed(failure := ProviderFailure(late, f"{self._model.name} did not answer in time", sent=True))
            raise failure from reason
        if isinstance(reason, ProviderFailure):
            reason.detail = unquoted(reason.detail, (part.text for part in self._request.parts))
            self._failed(reason)
        else:
            self._released("cancelled" if isinstance(reason, asyncio.CancelledError) else "error")
        raise reason

    def _failed(self, failure: ProviderFailure) -> None:
        if self._noted:
            return
        self._fleet.end(self._model)
        if failure.kind in (FailureKind.REJECTED, FailureKind.CAPACITY):
            self._fleet.released(self._model)
        else:
            now_ns = self._op.clock.monotonic_ns()
            self._fleet.failed(self._model, failure.kind.value, now_ns, failure.retry_after_s)
        self._note(failure)

    def _note(self, failure: ProviderFailure | None, ended: str = "") -> None:
        """Appends what the record keeps of this attempt, once."""
        self._noted = True
        if self._deadline is not None:
            self._deadline.close()
        if self._taken is not None:
            self._quotas.used(self._taken, self._tokens, sent=failure is None or failure.sent)
        billable = ended or (failure is not None and failure.sent and failure.status in (None, 200))
        self._attempts.append(
            Attempt(
                number=len(self._attempts),
                model=self._model.name,
                provider=self._model.provider.name,
                upstream=self._model.upstream,
                started_ns=self._started_ns,
                duration_ns=self._op.clock.monotonic_ns() - self._began_ns,
                first_token_ns=self._first_ns,
                failure=failure.kind.value if failure else ended,
                status=(failure.status or 0) if failure else 200,
                detail=failure.detail if failure else "",
                sent=failure.sent if failure else True,
                usage=self._unanswered() if billable and not self._first_ns else None,
            )
        )
        if failure is not None:
            self._op.observe(
                AttemptFailed(
                    exchange_id=self._op.id_text,
                    model=self._model.name,
                    provider=self._model.provider.name,
                    kind=failure.kind.value,
                    status=failure.status or 0,
                    detail=failure.detail,
                )
            )

    def _unanswered(self) -> Usage:
        """What a provider may bill for a request that it read and did not answer: the input."""
        return Usage(input=expected_input(self._request, self._model), basis=Basis.COUNTED)


async def _until_first_delta(events: Events) -> list[Event]:
    """The events up to the first that carries content or ends the reply. Raises ProviderFailure when none comes."""
    head: list[Event] = []
    async for event in events:
        head.append(event)
        if event.deltas or event.finish or event.done:
            return head
        if len(head) > HEAD_EVENTS_MAX:
            break
    said = "ended" if len(head) <= HEAD_EVENTS_MAX else f"sent {len(head)} events"
    raise ProviderFailure(FailureKind.BROKEN, f"the stream {said} without a first delta", sent=True)

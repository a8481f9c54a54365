"""Kind ``scripted``: a provider that is no provider. Deterministic answers in this process, for demos, drills and tests.

Answers, pace and faults are the manifest's (``scripted_config``); ``ScriptedServer`` plays the same script over HTTP. Here a
request goes through the same encoding, and its answer through the same decoding, as with a real provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator

from shipworthy.kit.scripted_config import ScriptedConfig
from shipworthy.kit.scripted_faults import EFFECTS, When
from shipworthy.kit.scripted_log import Ended, Entry, Log
from shipworthy.kit.scripted_plan import End, Piece, Plan
from shipworthy.kit.scripted_script import CHAT, EMBEDDINGS, Script
from shipworthy.manifest.specs import Spec
from shipworthy.model.chat import Event, Events, Request, Take
from shipworthy.model.dialects import openai_chat, openai_embeddings
from shipworthy.model.errors import FailureKind, ProviderFailure
from shipworthy.model.op import Op
from shipworthy.model.prompt import Fitted
from shipworthy.model.route import Ability, Boundary, Model, Network, Provider

_KINDS = {
    400: FailureKind.REJECTED,
    404: FailureKind.INVALID,
}  # of plans without a fault: a request that cannot be read


class ScriptedUpstream:
    """Implements ``ports.Upstream`` in this process."""

    def __init__(self, config: ScriptedConfig) -> None:
        self.script = Script(config)

    @property
    def log(self) -> Log:
        return self.script.log

    async def open(self, op: Op, model: Model, request: Request, fitted: Fitted) -> Events:
        if request.operation is Ability.EMBED:
            path, body = EMBEDDINGS, openai_embeddings.upstream_body(request, fitted, model.upstream)
        else:
            path, body = CHAT, openai_chat.upstream_body(request, fitted, model.upstream)
        entry, plan = self.script.take(path, {"traceparent": op.traceparent} if op.traceparent else {}, body)
        try:
            await self._head(entry, plan)
        except asyncio.CancelledError:
            entry.end(Ended.CLIENT_LEFT)
            raise
        return ScriptedReply(entry, plan, request.operation)

    async def _head(self, entry: Entry, plan: Plan) -> None:
        """Waits for the head of the answer. Raises the failure that a gateway sees instead of one."""
        if plan.head_delay_s:
            await asyncio.sleep(plan.head_delay_s)
        if plan.end is End.HANG and not plan.head:
            await asyncio.get_running_loop().create_future()
        effect = EFFECTS.get(entry.fault)
        kind = effect.kind if effect is not None and effect.when is When.HEAD else _KINDS.get(plan.status)
        if kind is not None:
            entry.end(Ended.FAULT)
            entry.status = plan.status if plan.head else 0
            raise failure_of(entry, plan, kind)
        entry.status = plan.status
        entry.billed_input = plan.input_tokens

    async def close(self) -> None:
        """Nothing is kept open."""


def failure_of(entry: Entry, plan: Plan, kind: FailureKind) -> ProviderFailure:
    """The failure of a plan before its first event."""
    body = next(iter(plan.pieces)).payload if plan.head and plan.status != 200 else b""
    return ProviderFailure(
        kind,
        f"scripted fault {entry.fault or plan.status} (x-request-id req-{entry.number})",
        sent=kind is not FailureKind.CONNECT,
        status=plan.status if plan.head else None,
        retry_after_s=plan.retry_after_s,
        body=body,
    )


class ScriptedReply:
    """Implements ``chat.Events``: the plan's pieces, decoded."""

    def __init__(self, entry: Entry, plan: Plan, operation: Ability) -> None:
        self._entry = entry
        self._events = _whole(entry, plan, operation) if not plan.stream else _stream(entry, plan)

    def __aiter__(self) -> ScriptedReply:
        return self

    async def each(self, take: Take) -> bool:
        return await one_by_one(self, take)

    async def __anext__(self) -> Event:
        try:
            return await anext(self._events)
        except ProviderFailure:
            self._entry.end(Ended.FAULT)
            raise
        except asyncio.CancelledError:
            self._entry.end(Ended.CLIENT_LEFT)
            raise

    async def aclose(self) -> None:
        self._entry.end(Ended.CLIENT_LEFT)
        await self._events.aclose()


async def one_by_one(events: Events, take: Take) -> bool:
    """``chat.Flow.each`` of events that come one at a time."""
    async for event in events:
        wanted = take((event,))
        if event.done or not wanted:
            return not event.done
    return False


async def _whole(entry: Entry, plan: Plan, operation: Ability) -> AsyncGenerator[Event, None]:
    pieces = tuple(plan.pieces)
    await _hang(plan)
    _break_off(entry)
    entry.billed_output += sum(piece.tokens for piece in pieces)
    body = b"".join(piece.payload for piece in pieces)
    event = (openai_embeddings if operation is Ability.EMBED else openai_chat).decode_reply(body)
    entry.end(Ended.SAID)
    yield event


async def _stream(entry: Entry, plan: Plan) -> AsyncGenerator[Event, None]:
    for piece in _sayable(plan):
        if piece.delay_s:
            await asyncio.sleep(piece.delay_s)
        entry.billed_output += piece.tokens
        try:
            event = openai_chat.decode_event(piece.payload)
        except ProviderFailure:
            _break_off(entry)
            raise
        if event.done:
            entry.end(Ended.SAID)
        yield event
        if event.done:
            return
    await _hang(plan)
    _break_off(entry)
    entry.end(Ended.SAID)
    yield Event(raw=b"[DONE]", done=True)  # every choice had finished


def _sayable(plan: Plan) -> Iterator[Piece]:
    """The pieces up to one that is no event at all."""
    for piece in plan.pieces:
        if not piece.framed:
            return
        yield piece


async def _hang(plan: Plan) -> None:
    if plan.end is End.HANG:
        await asyncio.get_running_loop().create_future()


def _break_off(entry: Entry) -> None:
    """Raises the failure that the fault is, if it is seen midway."""
    effect = EFFECTS.get(entry.fault)
    if effect is not None and effect.when is When.MIDWAY and effect.kind is not None:
        detail = f"scripted fault {entry.fault} (x-request-id req-{entry.number})"
        raise ProviderFailure(effect.kind, detail, sent=True, status=200)


def build(provider: Provider) -> ScriptedUpstream:
    settings = provider.settings
    assert isinstance(settings, ScriptedConfig)
    return ScriptedUpstream(settings)


BOUNDARY = Boundary(network=Network.LOCAL, trains_on_data=False, retention_days=0)
SPEC = Spec("scripted", ScriptedConfig, build, BOUNDARY)

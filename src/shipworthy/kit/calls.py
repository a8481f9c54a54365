"""Builders for tests of providers: a provider, a model of it, and a decoded request, as the call stage hands them over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from shipworthy.kit.scripted_log import Log
from shipworthy.kit.scripted_server import ScriptedServer
from shipworthy.model.chat import DeltaKind, Event, Request, Take
from shipworthy.model.dialects import openai_chat, openai_embeddings
from shipworthy.model.money import Component, Price
from shipworthy.model.op import Op, SystemClock
from shipworthy.model.prompt import Fitted
from shipworthy.model.route import Ability, Boundary, Model, Provider, Timeouts
from shipworthy.ports import Upstream

TIMEOUTS = Timeouts(connect_ms=1_000, first_token_ms=5_000, total_ms=10_000)


def a_provider(kind: str, settings: object, timeouts: Timeouts = TIMEOUTS) -> Provider:
    return Provider("house", kind, Boundary(), timeouts, concurrent_max=1_000, settings=settings)


def a_model(provider: Provider, upstream: str = "upstream-1") -> Model:
    """A model that can do everything, at a price."""
    return Model(
        name="small",
        provider=provider,
        upstream=upstream,
        abilities=frozenset(Ability),
        origin="open-weight",
        modalities=frozenset({"text", "image"}),
        context_tokens_max=32_000,
        output_tokens_max=4_000,
        price=Price({Component.INPUT: 1_000_000, Component.OUTPUT: 4_000_000}, source="test"),
        chars_per_token=4.0,
    )


def a_chat(text: str = "Good morning.", **fields: object) -> Request:
    """A chat request with one message; ``fields`` are further top-level fields of its body."""
    return decoded({"model": "support", "messages": [{"role": "user", "content": text}], **fields})


def decoded(body: Mapping[str, object] | bytes) -> Request:
    """What the decode stage makes of a body."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    if b'"messages"' in raw:
        return openai_chat.decode_request(raw)
    return openai_embeddings.decode_request(raw)


def fitted(request: Request, *, output_tokens_max: int = 1_000, replace: Mapping[str, bytes] | None = None) -> Fitted:
    cap = request.output_tokens_asked or output_tokens_max
    return Fitted(output_tokens_max=cap, input_tokens=len(request.body), replace=replace or {})


def an_op(traceparent: str = "") -> Op:
    return Op.for_request(SystemClock(), lambda observation: None, traceparent)


class Bench:
    """One implementation of Upstream with a script behind it; ``server`` is None when that runs in this process."""

    def __init__(self, upstream: Upstream, log: Log, server: ScriptedServer | None = None) -> None:
        self.upstream = upstream
        self.log = log
        self.server = server
        self.model = a_model(a_provider("any", None))

    async def all(self, request: Request, heard: list[Event] | None = None) -> list[Event]:
        """Every event of an answer, also put into ``heard`` as it comes."""
        taken = heard if heard is not None else []
        events = await self.upstream.open(an_op(), self.model, request, fitted(request))
        try:
            while await events.each(into(taken)):
                pass
        finally:
            await events.aclose()
        return taken


def into(heard: list[Event]) -> Take:
    """Keeps what comes, and always wants more."""

    def take(events: Sequence[Event]) -> bool:
        heard.extend(events)
        return True

    return take


def said(events: Sequence[Event], choice: int = 0, kind: DeltaKind = DeltaKind.TEXT) -> str:
    """What one choice says, put together."""
    return "".join(
        delta.text for event in events for delta in event.deltas if delta.choice == choice and delta.kind is kind
    )


async def until(holds: Callable[[], bool], within_s: float = 2.0) -> None:
    """Waits until ``holds``; TimeoutError when it does not in time."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.002)

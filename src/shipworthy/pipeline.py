"""A request, top to bottom: admit · deliver · close. Read this first.

``admit`` may refuse, with a status. ``deliver`` may end early and never changes the status. ``close`` runs always, once, and
survives any number of cancels. There is no other way to a provider: what is not authenticated, reserved or recorded cannot
be expressed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from shipworthy.model.chat import Event, Source
from shipworthy.model.errors import ProviderFailure, Refusal, StoreUnavailable
from shipworthy.model.exchange import Exchange, Outcome
from shipworthy.model.observation import Failed
from shipworthy.ports import Arrival, Opening, Replay, Sink, Stages


async def serve(x: Exchange, stages: Stages, arrival: Arrival, sink: Sink) -> None:
    """Takes one request to exactly one outcome. The last payload leaves only when the exchange is closed."""
    last = b""
    replay: Replay | None = None
    try:
        await admit(x, stages, arrival)
        last = await deliver(x, stages, sink)
        x.outcome = Outcome.ABANDONED if x.op.left else Outcome.SERVED
    except asyncio.CancelledError:
        x.outcome = Outcome.ABANDONED if x.op.left else Outcome.CUT
        await close(x, stages)
        raise
    except Replay as repeated:
        x.outcome, x.replay_of, replay = Outcome.SERVED, repeated.stored.exchange_id, repeated
    except Exception as reason:  # every exchange ends in one outcome, so nothing passes here unnamed
        x.outcome, x.refusal = judge(x, reason)
    unrecorded = await close(x, stages)
    if unrecorded is not None:
        await sink.refuse(unrecorded)
    elif replay is not None:
        await sink.replay(replay.stored)
    elif hasattr(x, "refusal"):
        await sink.refuse(x.refusal)
    else:
        await sink.finish(opening(x), last)


async def admit(x: Exchange, stages: Stages, arrival: Arrival) -> None:
    """Everything that may say no, in order; ends when the first piece of the answer is here.

    What begins here is a step in the record, up to what begins next.
    """
    op, begins = x.op, x.op.begins
    try:
        begins("identify")
        x.principal = await stages.identify(op, arrival.credentials)
        begins("decode")
        x.request = await stages.decode(op, arrival)
        begins("authorize")
        x.grant = stages.authorize(op, x.principal, x.request, arrival)
        begins("dedupe")
        await stages.dedupe(op, x.grant, x.request, arrival)
        begins("reserve")
        x.hold = await stages.reserve(op, x.grant, x.request)
        x.prompt = stages.resolve(op, x.grant)
        x.passages = await stages.retrieve(op, x.grant, x.request)
        x.screened = await stages.screen(op, x.grant, x.request, x.passages)
        begins("fit")
        x.fitted = stages.fit(op, x.grant, x.request, x.prompt, x.passages)
        x.hit = await stages.recall(op, x.grant, x.request, x.fitted)
        begins("route")
        x.route = stages.route(op, x.grant, x.hold, x.request, x.fitted)
        begins("call")
        x.reply = await stages.call(op, x.route, x.request, x.fitted, x.hold, x.attempts)
        op.ends()
    except BaseException as reason:
        op.ends(refused=reason.code if isinstance(reason, Refusal) else "")
        raise


async def deliver(x: Exchange, stages: Stages, sink: Sink) -> bytes:
    """Sends the answer as it comes, all but its last payload, which is returned."""
    op, grant, request, received, events = x.op, x.grant, x.request, x.received, x.reply.events
    last = b""

    def pass_on(came: Sequence[Event]) -> bool:
        nonlocal last
        payloads: list[bytes] = []
        elapsed_ns = op.elapsed_ns()
        for event in came:
            payload = stages.encode(op, request, stages.inspect(op, grant, event))
            received.note(event, payload, elapsed_ns)
            if event.done:
                last = payload
            elif payload:
                payloads.append(payload)
        return sink.send(payloads)

    if x.reply.stream:
        await sink.open(opening(x))
    while await events.each(pass_on):
        await sink.drained()
    return last


async def close(x: Exchange, stages: Stages) -> Refusal | None:
    """Settles and records, once, however often the waiting task is cancelled; why the answer must not be given, if so.

    An answer that is not recorded is not given, whatever the reason.
    """
    cancelled = None
    if hasattr(x, "reply") and not x.received.done:
        cancelled = await outlast(end_reply(x))
    try:
        if hasattr(x, "hold"):
            x.op.begins("settle")
            x.charge = stages.settle(x.op, x.hold, x.grant, x.attempts, x.received)
            x.op.ends()
        recording = stages.record(x.op, x)
        if recording is not None:
            cancelled = await outlast(recording) or cancelled
    except StoreUnavailable as away:
        return Refusal("record.unavailable", detail=str(away), retry_after_s=5)
    except Exception as bug:
        say_bug(x, "close", bug)
        return Refusal("record.unavailable", detail=type(bug).__name__)
    finally:
        if cancelled is not None:
            raise cancelled
    return None


async def outlast(work: Awaitable[None]) -> asyncio.CancelledError | None:
    """Waits for ``work`` to its end, also when cancelled; the last cancel. Raises what ``work`` raises.

    A bare second ``await`` would lose the settlement on a second cancel.
    """
    ending = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.wait({ending})
        except asyncio.CancelledError as again:
            cancelled = again
    ending.result()
    return cancelled


async def end_reply(x: Exchange) -> None:
    """Ends the provider's answer. One that cannot even be closed costs neither its settlement nor its row."""
    try:
        await x.reply.events.aclose()
    except Exception as bug:
        say_bug(x, "reply", bug)


def judge(x: Exchange, reason: Exception) -> tuple[Outcome, Refusal]:
    """The outcome of an exchange that ``reason`` ended, and what its client is told."""
    match reason:
        case Refusal(code=code):
            if x.op.left or code == "decode.client_left":
                return Outcome.ABANDONED, reason
            asked = code.startswith("call.") or any(attempt.sent for attempt in x.attempts)
            return (Outcome.FAILED if asked else Outcome.REFUSED), reason
        case ProviderFailure():
            return Outcome.CUT, Refusal("call.cut", detail=str(reason))
        case _:
            say_bug(x, "pipeline", reason)
            return Outcome.FAILED, Refusal("server.internal", detail=type(reason).__name__)


def say_bug(x: Exchange, where: str, bug: Exception) -> None:
    x.op.observe(Failed.of(where, bug, x.op.id_text))


def opening(x: Exchange) -> Opening:
    """What the head of the answer says."""
    return Opening(
        stream=x.reply.stream,
        use_case=x.grant.use_case.name,
        model=x.reply.model.name,
        release=x.prompt.digest,
        source=Source(x.reply.source),
        hold=x.hold,
        output_tokens_max=x.fitted.output_tokens_max,
        cost_nano=x.charge.amount_nano if hasattr(x, "charge") else None,
    )

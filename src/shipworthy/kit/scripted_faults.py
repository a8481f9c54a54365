"""The faults of the scripted provider: what each does to a plan, and as which failure a gateway must see it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from functools import lru_cache
from itertools import repeat

from msgspec import Struct
from msgspec.structs import replace

from shipworthy.kit.scripted_config import FAULTS, Line
from shipworthy.kit.scripted_plan import End, Piece, Plan, plan_error
from shipworthy.model.errors import FailureKind

APART_S = 0.02  # so that what came before a fault is read before it
_FILLER = b" " * 65_536
_ERROR = (
    b'{"error":{"message":"Scripted fault: an error inside a 200.","type":"server_error","param":null,"code":null}}'
)
_PAGE = b"<!doctype html><title>502</title><h1>Bad gateway</h1>"


class When(StrEnum):
    """When a fault is seen."""

    NEVER = "never"  # the answer is served all the same
    HEAD = "head"  # before any event
    MIDWAY = "midway"  # after the first event of a stream
    WAITING = "waiting"  # nothing comes: whose deadline passes first decides


class Effect(Struct, frozen=True):
    """``kind`` is what the gateway must make of it; None = nothing is wrong with the answer's form."""

    change: Callable[[Plan, Line], Plan]
    when: When
    kind: FailureKind | None = None


def meet(line: Line, plan: Plan) -> Plan:
    """``plan`` with the fault of ``line`` in it."""
    return EFFECTS[line.fault].change(plan, line)


def claimed(line: Line | None, usage: dict[str, int]) -> object:
    """The usage that is reported: the true one, unless the fault lies about it."""
    match line.fault if line else "":
        case "usage-x10":
            return {name: count * 10 for name, count in usage.items()}
        case "usage-zero":
            return dict.fromkeys(usage, 0)
        case "usage-negative":
            return {name: -count for name, count in usage.items()}
        case "usage-missing":
            return None
        case _:
            return usage


def _status(status: int) -> Callable[[Plan, Line], Plan]:
    def change(plan: Plan, line: Line) -> Plan:
        refusal = plan_error(status, f"Scripted fault {status}.", _retry_after(line))
        return replace(refusal, retry_after_s=line.retry_after_s)

    return change


def _retry_after(line: Line) -> tuple[tuple[str, str], ...]:
    if line.retry_after_s is None:
        return ()
    if not line.retry_after_date:
        return (("retry-after", f"{line.retry_after_s:g}"),)
    at = datetime.now(UTC) + timedelta(seconds=line.retry_after_s)
    return (("retry-after", format_datetime(at, usegmt=True)),)


def _slow(plan: Plan, line: Line) -> Plan:
    delay_s = line.delay_ms / 1_000
    if not plan.stream:
        return replace(plan, head_delay_s=plan.head_delay_s + delay_s)
    return replace(plan, pieces=(replace(piece, delay_s=delay_s if piece.tokens else 0.0) for piece in plan.pieces))


def _half(plan: Plan) -> tuple[Piece, ...]:
    """The first half of the tokens of a stream, or of the bytes of a body."""
    pieces = tuple(plan.pieces)
    if not plan.stream:
        body = b"".join(piece.payload for piece in pieces)
        return (Piece(body[: len(body) // 2]),)
    return pieces[: max(1, len(pieces) // 2)]


def _then(end: End) -> Callable[[Plan, Line], Plan]:
    return lambda plan, _: replace(plan, pieces=_half(plan), end=end)


def _broken_off(payload: bytes, *, framed: bool) -> Callable[[Plan, Line], Plan]:
    """Half a stream, then ``payload``; without a stream ``payload`` is the whole body."""

    def change(plan: Plan, line: Line) -> Plan:
        if not plan.stream:
            return _body(payload, plan)
        return replace(plan, pieces=(*_half(plan), Piece(payload, delay_s=APART_S, framed=framed)))

    return change


def _body(body: bytes, plan: Plan, content_type: str = "application/json") -> Plan:
    return replace(plan, pieces=(Piece(body),), stream=False, length=len(body), content_type=content_type)


def _no_done(plan: Plan, line: Line) -> Plan:
    return (
        replace(plan, pieces=tuple(piece for piece in plan.pieces if piece.payload != b"[DONE]"))
        if plan.stream
        else plan
    )


def _redirect(plan: Plan, line: Line) -> Plan:
    return replace(_body(b"", plan), status=307, headers=(("location", "http://127.0.0.1:9/elsewhere"),))


def _empty(plan: Plan, line: Line) -> Plan:
    return replace(plan, pieces=(Piece(b"[DONE]"),)) if plan.stream else _body(b"{}", plan)


def _json_not_stream(plan: Plan, line: Line) -> Plan:
    body = b'{"id":"x","object":"chat.completion","created":0,"model":"x","choices":[]}'
    return _body(body if plan.stream else b"[]", plan)


def _huge(plan: Plan, line: Line) -> Plan:
    filler: Iterable[Piece] = repeat(Piece(_FILLER, framed=False), line.size_bytes // len(_FILLER) + 1)
    if not plan.stream:
        return replace(plan, pieces=filler, length=-1)
    return replace(plan, pieces=_comments(line.size_bytes))


def _comments(size_bytes: int) -> Iterator[Piece]:
    """A stream that says nothing, at great length: comment lines."""
    comment = Piece(b":" + b"." * 1_022 + b"\n", framed=False)
    yield from repeat(comment, size_bytes // len(comment.payload) + 1)


def _gzip_bomb(plan: Plan, line: Line) -> Plan:
    bomb = _bomb(line.size_bytes)
    return replace(plan, pieces=(Piece(bomb, framed=False),), length=len(bomb), headers=(("content-encoding", "gzip"),))


@lru_cache(maxsize=2)
def _bomb(size_bytes: int) -> bytes:
    pack = zlib.compressobj(level=9, wbits=31)
    packed = [pack.compress(_FILLER) for _ in range(size_bytes // len(_FILLER) + 1)]
    return b"".join(packed) + pack.flush()


def _as_it_is(plan: Plan, line: Line) -> Plan:
    return plan


_BROKEN, _INVALID, _SERVER = FailureKind.BROKEN, FailureKind.INVALID, FailureKind.SERVER_ERROR
_WAITING = FailureKind.FIRST_TOKEN_TIMEOUT

EFFECTS: dict[str, Effect] = {
    "400": Effect(_status(400), When.HEAD, FailureKind.REJECTED),
    "401": Effect(_status(401), When.HEAD, FailureKind.UNAUTHORISED),
    "404": Effect(_status(404), When.HEAD, FailureKind.INVALID),
    "429": Effect(_status(429), When.HEAD, FailureKind.RATE_LIMITED),
    "500": Effect(_status(500), When.HEAD, _SERVER),
    "503": Effect(_status(503), When.HEAD, _SERVER),
    "connect": Effect(lambda plan, _: replace(plan, head=False, end=End.RESET), When.HEAD, FailureKind.CONNECT),
    "reset": Effect(lambda plan, _: replace(plan, head=False, end=End.RESET), When.HEAD, _BROKEN),
    "redirect": Effect(_redirect, When.HEAD, _INVALID),
    "slow": Effect(_slow, When.NEVER),
    "late-head": Effect(lambda plan, line: replace(plan, head_delay_s=line.delay_ms / 1_000), When.NEVER),
    "drip": Effect(lambda plan, line: replace(plan, byte_delay_s=line.delay_ms / 100_000), When.NEVER),
    "hang": Effect(lambda plan, _: replace(plan, head=False, end=End.HANG), When.WAITING, _WAITING),
    "hang-after-head": Effect(lambda plan, _: replace(plan, pieces=(), end=End.HANG), When.WAITING, _BROKEN),
    "hang-midway": Effect(_then(End.HANG), When.WAITING, _BROKEN),
    "half-stream": Effect(_then(End.RESET), When.MIDWAY, _BROKEN),
    "half-stream-fin": Effect(_then(End.FIN), When.MIDWAY, _BROKEN),
    "no-done": Effect(_no_done, When.NEVER),
    "no-end": Effect(lambda plan, _: replace(plan, end=End.LINGER) if plan.stream else plan, When.NEVER),
    "garbled": Effect(lambda plan, _: replace(plan, pieces=_half(plan), garbled=True, length=-1), When.MIDWAY, _BROKEN),
    "broken-json": Effect(
        _broken_off(b'{"choices": [{"index": 0, "delta": {"cont', framed=True), When.MIDWAY, _INVALID
    ),
    "broken-sse": Effect(_broken_off(b"<html>502 Bad Gateway</html>\n\n", framed=False), When.MIDWAY, _INVALID),
    "empty": Effect(_empty, When.HEAD, _INVALID),
    "error-200": Effect(lambda plan, _: _body(_ERROR, plan), When.HEAD, _INVALID),
    "error-midway": Effect(_broken_off(_ERROR, framed=True), When.MIDWAY, _INVALID),
    "wrong-content-type": Effect(lambda plan, _: _body(_PAGE, plan, "text/html"), When.HEAD, _INVALID),
    "json-not-stream": Effect(_json_not_stream, When.HEAD, _INVALID),
    "huge": Effect(_huge, When.HEAD, _INVALID),
    "gzip-bomb": Effect(_gzip_bomb, When.HEAD, _INVALID),
    "usage-x10": Effect(_as_it_is, When.NEVER),
    "usage-zero": Effect(_as_it_is, When.NEVER),
    "usage-negative": Effect(_as_it_is, When.NEVER),
    "usage-missing": Effect(_as_it_is, When.NEVER),
}
assert tuple(EFFECTS) == FAULTS, "every fault that a manifest may name has an effect"


def parse_marker(words: str) -> Line:
    """A line from a marker's words: ``slow delay_ms=500``. Raises ValueError, in words."""
    name, *settings = words.split()
    said: dict[str, object] = {"fault": name, "times": 0}
    for setting in settings:
        key, _, value = setting.partition("=")
        said[key] = value
    return Line.model_validate(said)

"""An answer as a sequence of things to do: wait, say the head, say the pieces, end. Faults change the plan, not the doing.

The server carries a plan out on a socket; the in-process provider reads the same plan as events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec
from msgspec import Struct

from shipworthy.kit.scripted_answer import Answer, Vectors, embedded, streamed, whole
from shipworthy.kit.scripted_config import Pace


class End(StrEnum):
    """How an answer ends."""

    CLEAN = "clean"
    FIN = "fin"  # the connection is closed before the announced end
    RESET = "reset"
    HANG = "hang"  # nothing more comes
    LINGER = "linger"  # all is said, but the transfer does not end


class Piece(Struct, frozen=True):
    """What is said at once, after a wait. ``framed`` False goes out as it is, without SSE framing."""

    payload: bytes
    tokens: int = 0
    delay_s: float = 0.0
    framed: bool = True


class Plan(Struct, frozen=True):
    """One answer. ``pieces`` of a stream are SSE payloads, else the body in ``length`` bytes (-1 = chunked)."""

    pieces: Iterable[Piece]
    stream: bool
    length: int
    input_tokens: int
    reported: object = None  # the usage that it claims
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    retry_after_s: float | None = None  # what the headers say
    head_delay_s: float = 0.0
    head: bool = True  # False: not even a head comes
    byte_delay_s: float | None = None  # one byte at a time
    garbled: bool = False  # the transfer framing is broken after the last piece
    end: End = End.CLEAN


def plan_chat(answer: Answer, stream: bool, pace: Pace, usage: object) -> Plan:
    """The plan without a fault."""
    first_s, next_s = pace.first_token_ms / 1_000, pace.inter_token_ms / 1_000
    if stream:
        pieces = _paced(streamed(answer, usage), first_s, next_s)
        reported = usage if answer.include_usage else None
        return Plan(pieces, True, -1, answer.input_tokens, reported, content_type="text/event-stream")
    body = whole(answer, usage)
    waited_s = first_s + next_s * max(0, answer.output_tokens - 1)
    return Plan(
        (Piece(body, answer.output_tokens),), False, len(body), answer.input_tokens, usage, head_delay_s=waited_s
    )


def plan_embeddings(vectors: Vectors, pace: Pace, usage: object) -> Plan:
    body = embedded(vectors, usage)
    delay_s = pace.first_token_ms / 1_000
    return Plan((Piece(body),), False, len(body), vectors.input_tokens, usage, head_delay_s=delay_s)


def plan_error(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Plan:
    """A refusal in the API's own error shape."""
    body = msgspec.json.encode(
        {"error": {"message": message, "type": "scripted_fault", "param": None, "code": str(status)}}
    )
    return Plan((Piece(body),), False, len(body), 0, status=status, headers=headers)


def _paced(payloads: Iterator[tuple[bytes, int]], first_s: float, next_s: float) -> Iterator[Piece]:
    wait_s = first_s
    for payload, tokens in payloads:
        if tokens:
            yield Piece(payload, tokens, wait_s)
            wait_s = next_s
        else:
            yield Piece(payload)

"""What the edge of the data plane hands in and takes back: arrivals, openings, the sink; answers kept for repeats."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from shipworthy.model.chat import Dialect
from shipworthy.model.errors import Refusal, ShipworthyError
from shipworthy.model.identity import Credentials
from shipworthy.model.ledger import Hold
from shipworthy.model.op import Op


class Arrival(Struct, frozen=True):
    """What the edge knows of a request before its body is read. Header values are length-checked, otherwise as sent."""

    dialect: Dialect
    credentials: Credentials
    read_body: Callable[[], Awaitable[bytes]]  # raises Refusal decode.*; called once, after the sender is known
    data_class: str = ""
    session: str = ""
    idempotency_key: str = ""
    peer: str = ""


class Opening(Struct, frozen=True):
    """What the answer's head says. ``cost_nano`` is None on streams: it is not known yet."""

    stream: bool
    use_case: str
    model: str
    release: str
    source: str
    hold: Hold | None
    output_tokens_max: int
    cost_nano: int | None


class Sink(Protocol):
    """Where the answer goes. After the client has left, sends do nothing, and nobody waits."""

    async def open(self, opening: Opening) -> None: ...
    def send(self, payloads: Sequence[bytes]) -> bool:
        """Payloads of the dialect; the sink frames each. Whether it may go on at once; else it waits for ``drained``."""

    async def drained(self) -> None:
        """Returns when the client has read enough of what was sent, or is gone."""

    async def finish(self, opening: Opening, payload: bytes) -> None:
        """The last payload and the end of the answer; opens it first when nothing was sent yet."""

    async def replay(self, stored: Stored) -> None:
        """The stored answer to a repeated request."""

    async def refuse(self, refusal: Refusal) -> None:
        """A status and the dialect's error while nothing was sent; afterwards the dialect's error event."""


REPLAYED_BYTES_MAX = 1_048_576
"""A longer answer is not kept for repeats: its repeat runs, and is charged, afresh."""


class Stored(Struct, frozen=True):
    """The answer that an Idempotency-Key already got."""

    exchange_id: UUID
    status: int
    content_type: str
    body: bytes


class Replay(ShipworthyError):
    """Not a failure: the request is a repeat, and ``stored`` is its answer."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        super().__init__(str(stored.exchange_id))


class Repeats(Protocol):
    """Idempotency-Keys, scoped by tenant, principal and route."""

    async def begin(self, op: Op, tenant: str, scope: str, key: str, body_sha256: bytes) -> Stored | None:
        """None = first: it is now in flight. Raises Refusal idempotency.other_body or idempotency.in_flight."""

    async def finish(self, op: Op, tenant: str, scope: str, key: str, stored: Stored | None) -> None:
        """Keeps the answer; None forgets the key, so that a retry runs afresh."""

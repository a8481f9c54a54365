"""The path of a request as a value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from shipworthy.model.chat import Event, Reply, Request
from shipworthy.model.exchange import Exchange, Received
from shipworthy.model.guard import Screened
from shipworthy.model.identity import Credentials, Grant, Principal
from shipworthy.model.knowledge import Passages
from shipworthy.model.ledger import Charge, Hold
from shipworthy.model.op import Op
from shipworthy.model.policy import Snapshot
from shipworthy.model.prompt import Fitted, Hit, Prompt
from shipworthy.model.route import Attempt, Route
from shipworthy.ports.edge import Arrival


@dataclass(frozen=True, slots=True)
class Stages:
    """The path of a request as a value: callables, wrapped with timers in ``bootstrap``. A test replaces a field."""

    identify: Callable[[Op, Credentials], Awaitable[Principal]]
    decode: Callable[[Op, Arrival], Awaitable[Request]]
    authorize: Callable[[Op, Principal, Request, Arrival], Grant]
    dedupe: Callable[[Op, Grant, Request, Arrival], Awaitable[None]]
    reserve: Callable[[Op, Grant, Request], Awaitable[Hold]]
    resolve: Callable[[Op, Grant], Prompt]
    retrieve: Callable[[Op, Grant, Request], Awaitable[Passages]]
    screen: Callable[[Op, Grant, Request, Passages], Awaitable[Screened]]
    fit: Callable[[Op, Grant, Request, Prompt, Passages], Fitted]
    recall: Callable[[Op, Grant, Request, Fitted], Awaitable[Hit]]
    route: Callable[[Op, Grant, Hold, Request, Fitted], Route]
    call: Callable[[Op, Route, Request, Fitted, Hold, list[Attempt]], Awaitable[Reply]]
    inspect: Callable[[Op, Grant, Event], Event]
    encode: Callable[[Op, Request, Event], bytes]
    settle: Callable[[Op, Hold, Grant, Sequence[Attempt], Received], Charge]
    record: Callable[[Op, Exchange], Awaitable[None] | None]  # None: it is done


@dataclass(frozen=True, slots=True)
class Live:
    """What is in force: one snapshot and the stages built from it. A request keeps the one that it began with."""

    snapshot: Snapshot
    stages: Stages

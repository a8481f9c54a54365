"""resolve, retrieve, screen, recall, inspect where nothing is configured for them.

Each stands in its place in the path and leaves a receipt that says so: a check that did not run is never mistaken for one
that found nothing. The manifest refuses the keys that would configure them until they are built.
"""

from __future__ import annotations

from shipworthy.model.chat import Event, Request
from shipworthy.model.guard import Receipt, Screened
from shipworthy.model.identity import Grant
from shipworthy.model.knowledge import Passages
from shipworthy.model.op import Op
from shipworthy.model.prompt import Fitted, Hit, Prompt

_NONE = "not_configured"
_PROMPT = Prompt("", 0, Receipt("resolve", "prompt", _NONE, "the client's own messages are the prompt"))
_PASSAGES = Passages((), 0, Receipt("retrieve", "knowledge", _NONE))
_SCREENED = Screened((Receipt("screen", "guards", _NONE), Receipt("inspect", "guards", _NONE)))
_HIT = Hit(Receipt("recall", "cache", _NONE))


def resolve(op: Op, grant: Grant) -> Prompt:
    return _PROMPT


async def retrieve(op: Op, grant: Grant, request: Request) -> Passages:
    return _PASSAGES


async def screen(op: Op, grant: Grant, request: Request, passages: Passages) -> Screened:
    return _SCREENED


async def recall(op: Op, grant: Grant, request: Request, fitted: Fitted) -> Hit:
    return _HIT


def inspect(op: Op, grant: Grant, event: Event) -> Event:
    return event

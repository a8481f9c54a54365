"""The one event model that every dialect is decoded to, for requests and for replies.

A request keeps the client's bytes: parts say where they stand in them (``path``; ``model/places`` turns paths into byte
spans when a stage rewrites), so that same-dialect traffic is spliced, never rebuilt.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from enum import StrEnum

from msgspec import Raw, Struct

from shipworthy.model.money import Usage
from shipworthy.model.route import Ability, Model


class Dialect(StrEnum):
    OPENAI_CHAT = "openai-chat"
    OPENAI_RESPONSES = "openai-responses"
    OPENAI_EMBEDDINGS = "openai-embeddings"
    ANTHROPIC_MESSAGES = "anthropic-messages"


class Origin(StrEnum):
    """Who said it. Trust follows origin, never position."""

    SYSTEM = "system"
    USER = "user"
    RETRIEVED = "retrieved"
    TOOL = "tool"
    MODEL = "model"


class PartKind(StrEnum):
    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    FILE = "file"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    REASONING = "reasoning"
    OPAQUE = "opaque"  # passes through, cannot be read here (encrypted reasoning, stored item ids, token arrays)


Path = tuple[str | int, ...]
"""Where a JSON value stands: object keys and array indexes from the root of the body."""


class Part(Struct, frozen=True, gc=False):
    """One typed piece of content.

    ``text`` is what a guard reads: the text, a tool call's arguments, a tool result's text, a remote medium's URL.
    ``scannable`` False means that nobody here can read it: a guard that demands a scan refuses it.
    """

    kind: PartKind
    origin: Origin
    turn: int  # index of the message or item
    path: Path
    text: str = ""
    scannable: bool = True
    name: str = ""  # tool or file name
    call_id: str = ""  # ties a tool result to its call
    media_type: str = ""
    bytes_inline: int = 0  # size of inline media as it stands in the body (base64)


class Tool(Struct, frozen=True, gc=False):
    """A tool that the request offers. ``hosted`` tools run at the provider: egress and money."""

    name: str
    hosted: bool
    path: Path


class Request(Struct, frozen=True):
    """A decoded request. ``fields`` are the raw top-level values by name, in the client's order."""

    dialect: Dialect
    operation: Ability
    model: str  # as the client named it: a use case or an alias
    body: bytes
    fields: Mapping[str, Raw]
    parts: tuple[Part, ...]
    tools: tuple[Tool, ...] = ()
    stream: bool = False
    include_usage: bool = False  # the client asked for usage on the stream
    output_tokens_asked: int | None = None
    output_tokens_field: str = ""  # which field asked, "" = none did
    choices: int = 1
    end_user: str = ""  # asserted, unverified
    inputs: int = 0  # embeddings: how many texts

    @property
    def images(self) -> int:
        return sum(part.kind is PartKind.IMAGE for part in self.parts)

    @property
    def bytes_inline(self) -> int:
        return sum(part.bytes_inline for part in self.parts)


class DeltaKind(StrEnum):
    TEXT = "text"
    REASONING = "reasoning"
    REFUSAL = "refusal"
    TOOL_CALL = "tool_call"


class Delta(Struct, frozen=True, gc=False):
    """A piece of a reply: of one choice, and for a tool call of one call's arguments."""

    choice: int
    kind: DeltaKind
    text: str
    call: int = 0  # index of the tool call within the choice
    call_id: str = ""
    name: str = ""


class Event(Struct, frozen=True):
    """What arrived from a provider at once: one server-sent event, or a whole JSON answer.

    ``raw`` is the payload in the provider's dialect, without SSE framing. ``usage_only`` marks an event that carries
    nothing else, so that it can be withheld from a client that did not ask. ``done`` ends the reply.
    """

    raw: bytes
    deltas: tuple[Delta, ...] = ()
    finish: tuple[tuple[int, str], ...] = ()  # (choice, reason)
    usage: Usage | None = None
    usage_only: bool = False
    done: bool = False


class Source(StrEnum):
    """Where a reply comes from."""

    MODEL = "model"
    CACHE = "cache"
    EXTRACTIVE = "extractive"
    REPLAY = "replay"  # the stored answer to a repeated Idempotency-Key


class Reply(Struct, frozen=True):
    """A provider's answer whose first event is here. ``events`` yields the first event too, and is closed on every exit."""

    model: Model
    attempt: int  # index in Exchange.attempts
    stream: bool
    source: Source
    events: AsyncGenerator[Event, None]

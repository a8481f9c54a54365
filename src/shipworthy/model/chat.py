"""The one event model that every dialect is decoded to, for requests and for replies.

A request keeps the client's bytes: parts say where they stand in them (``path``; ``model/places`` turns paths into byte
spans when a stage rewrites), so that same-dialect traffic is spliced, never rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Raw, Struct
from msgspec.structs import force_setattr

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
    DEFINITION = "definition"  # what the model is told of shapes: a tool's definition, the answer's schema
    OTHER = "other"  # a field or block that this version doesn't know; all its text is here, so that it is scanned
    OPAQUE = "opaque"  # passes through, cannot be read here (encrypted reasoning, stored item ids, token arrays)


Path = tuple[str | int, ...]
"""Where a JSON value stands: object keys and array indexes from the root of the body."""


class Part(Struct, frozen=True, gc=False):
    """One typed piece of content.

    ``text`` is what a guard reads: the text, a tool call's arguments, a tool result's text, a remote medium's URL.
    ``path`` leads to the JSON string that ``text`` is; when ``structured``, it leads to an object, array or number, and
    ``text`` is a line for each leaf below it (``key: value``), so a rewrite goes leaf by leaf.
    ``scannable`` False means that it holds something nobody here can read, beside what ``text`` says: a guard that
    demands a scan refuses it.
    """

    kind: PartKind
    origin: Origin
    turn: int  # index of the message or item; -1 outside them (system prompt, definitions, unknown fields)
    path: Path
    text: str = ""
    structured: bool = False
    scannable: bool = True
    name: str = ""  # tool or file name
    call_id: str = ""  # ties a tool result to its call
    media_type: str = ""
    bytes_inline: int = 0  # size of inline media as it stands in the body (base64)


class Tool(Struct, frozen=True, gc=False):
    """A tool that the request offers. ``hosted`` ones run at the provider: egress and money.

    Fields that make the provider do, keep or bill something else (``web_search_options``, ``store``, ``service_tier``) are
    hosted tools too, under the field's name.
    """

    name: str
    hosted: bool
    path: Path


class Content(Struct, frozen=True, gc=False):
    """What stands in a request's parts, counted once: several stages ask."""

    characters: int = 0
    images: int = 0
    bytes_inline: int = 0
    unbounded: int = 0  # how many contexts may be full of media that neither bytes nor images count
    countable: bool = True  # False: media are in it whose tokens nobody here can count


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
    content: Content = Content()  # of ``parts``; never handed in

    def __post_init__(self) -> None:
        force_setattr(self, "content", content_of(self.parts, embeds=self.operation is Ability.EMBED))

    @property
    def images(self) -> int:
        return self.content.images


def content_of(parts: tuple[Part, ...], *, embeds: bool) -> Content:
    """What ``parts`` hold. What no count of bytes bounds may fill the chat's context, or each embedded input's."""
    characters = images = bytes_inline = media = 0
    countable = True
    for part in parts:
        characters += len(part.text)
        if part.kind is PartKind.TEXT and part.scannable and not part.bytes_inline:
            continue
        bytes_inline += part.bytes_inline
        images += part.kind is PartKind.IMAGE
        media += unbounded(part, embeds=embeds)
        countable = countable and part.scannable and not part.bytes_inline
    return Content(characters, images, bytes_inline, media if embeds else min(media, 1), countable)


def unbounded(part: Part, *, embeds: bool) -> bool:
    """Whether neither its bytes nor a ceiling for an image bound its tokens: sound, files, what only the provider knows."""
    match part.kind:
        case PartKind.TEXT:
            return False
        case PartKind.AUDIO | PartKind.FILE:
            return True
        case PartKind.OTHER:
            return not part.scannable
        case PartKind.OPAQUE:
            return not embeds  # an embedded one is an array of tokens: its bytes bound it
        case _:
            return False


class DeltaKind(StrEnum):
    TEXT = "text"
    REASONING = "reasoning"
    REFUSAL = "refusal"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"  # what a hosted tool found or did
    AUDIO = "audio"  # the transcript of what is spoken
    OTHER = "other"  # a field or block that this version doesn't know: all its text


class Delta(Struct, frozen=True, gc=False):
    """A piece of a reply: of one choice, and for a tool call of one call's arguments.

    ``path`` leads to its JSON value in the event's ``raw``, so that inspect can rewrite it; ``structured`` as in Part.
    ``repeat`` marks text that earlier deltas said already (the Responses dialect repeats itself in its ``done`` events): it
    is inspected, and not counted again.
    """

    choice: int
    kind: DeltaKind
    text: str
    path: Path
    call: int = 0  # index of the tool call within the choice
    call_id: str = ""
    name: str = ""
    structured: bool = False
    repeat: bool = False


class Event(Struct, frozen=True, gc=False):
    """What arrived from a provider at once: one server-sent event, or a whole JSON answer.

    ``raw`` is the payload in the provider's dialect, without SSE framing; ``name`` is its SSE event name ("" = none).
    ``usage`` is cumulative, and may be partial: what is kept is the greatest of each figure (``Usage.at_least``).
    ``usage_refused`` says that figures came which cannot be true: they are None here and settle counts instead.
    ``usage_only`` marks an event that carries nothing else, so that it can be withheld from a client that did not ask.
    ``opaque`` marks content that nobody here can read (audio, images, encrypted reasoning). ``done`` ends the reply.
    """

    raw: bytes
    name: str = ""
    deltas: tuple[Delta, ...] = ()
    finish: tuple[tuple[int, str], ...] = ()  # (choice, reason)
    usage: Usage | None = None
    usage_refused: bool = False
    usage_only: bool = False
    opaque: bool = False
    done: bool = False


class Source(StrEnum):
    """Where a reply comes from."""

    MODEL = "model"
    CACHE = "cache"
    EXTRACTIVE = "extractive"
    REPLAY = "replay"  # the stored answer to a repeated Idempotency-Key


Take = Callable[[Sequence[Event]], bool]
"""Is given the events that are here together, in order; whether it wants more for now."""


class Flow(Protocol):
    """What a provider sends, as it comes. Closed on every exit, also when it was never read."""

    async def each(self, take: Take) -> bool:
        """Gives all events to ``take``, until that wants no more for now; whether there may be more.

        ``take`` is called where bytes arrive, not in the task that waits here: it must not block, and what it raises is
        raised here. Raises ProviderFailure where the provider broke off.
        """

    async def aclose(self) -> None: ...


class Events(Flow, Protocol):
    """The same, also one by one."""

    def __aiter__(self) -> Events: ...
    async def __anext__(self) -> Event: ...


class Reply(Struct, frozen=True):
    """A provider's answer whose first event is here. ``events`` gives the first event too, and is closed on every exit."""

    model: Model
    attempt: int  # index in Exchange.attempts
    stream: bool
    source: Source
    events: Flow

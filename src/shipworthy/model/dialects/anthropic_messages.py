"""Anthropic Messages: requests. Replies are read in ``anthropic_messages_reply``, blocks in ``anthropic_blocks``."""

from __future__ import annotations

from shipworthy.model.chat import Dialect, Origin, PartKind, Path, Request
from shipworthy.model.dialects import fields as top
from shipworthy.model.dialects.anthropic_blocks import read_content
from shipworthy.model.dialects.anthropic_messages_reply import decode_event as decode_event
from shipworthy.model.dialects.anthropic_messages_reply import decode_reply as decode_reply
from shipworthy.model.dialects.gather import (
    OUTSIDE,
    Gather,
    a_count,
    a_flag,
    a_model,
    an_array,
    an_end_user,
    an_object,
    required,
    wrong_type,
)
from shipworthy.model.dialects.strict import LIMITS, Json, Limits, Object, parse_object, raw_fields, words
from shipworthy.model.route import Ability

RULES = top.FieldRules(
    read=words("model messages system tools max_tokens stream metadata output_config output_format"),
    unread=frozenset(),
    hosted={
        "mcp_servers": frozenset(),
        "container": frozenset(),
        "context_management": frozenset(),
        "compaction": frozenset(),
        "fallbacks": frozenset(),
        "fallback_credit_token": frozenset(),
        "billing_policy": frozenset(),
        "inference_geo": frozenset(),
        "thread": frozenset(),
        "user_profile_id": frozenset(),
        "workspace_id": frozenset(),
        "speed": words("standard"),
        "service_tier": words("auto standard_only"),
    },
    refused=top.ASIDE,
)
ORIGINS = {"user": Origin.USER, "assistant": Origin.MODEL, "system": Origin.SYSTEM}
MESSAGE = words("role content")
CLIENT_RUN = ("bash_", "text_editor_", "computer_", "memory_", "browser_toolset_")
"""Tools that the provider defines and the client runs; every other type but ``custom`` runs at the provider."""


def decode_request(body: bytes, limits: Limits = LIMITS) -> Request:
    """The request that ``body`` is. Raises Refusal decode.*, nothing else, whatever the bytes."""
    fields = parse_object(body, limits)
    model = a_model(fields, limits)
    required(fields, "max_tokens")
    gather = Gather(limits)
    read_content(fields.get("system"), Origin.SYSTEM, OUTSIDE, ("system",), gather)
    definitions(fields, gather)
    for turn, message in enumerate(an_array(required(fields, "messages"), ("messages",), limits.messages_max)):
        read_message(message, turn, gather)
    top.apply(RULES, fields, gather)
    sender = end_user(fields, gather)
    return Request(
        dialect=Dialect.ANTHROPIC_MESSAGES,
        operation=Ability.CHAT,
        model=model,
        body=body,
        fields=raw_fields(body),
        parts=gather.bounded(),
        tools=tuple(gather.tools),
        stream=a_flag(fields, "stream"),
        include_usage=True,  # the dialect always tells
        output_tokens_asked=a_count(fields, "max_tokens"),
        output_tokens_field="max_tokens",
        end_user=sender,
    )


def read_message(message: Json, turn: int, gather: Gather) -> None:
    path: Path = ("messages", turn)
    message = an_object(message, path)
    role = message.get("role")
    if not isinstance(role, str):
        wrong_type((*path, "role"), "a string")
    origin = ORIGINS.get(role)
    if origin is None:
        origin = Origin.USER
        gather.other(origin, turn, (*path, "role"), role)
    read_content(message.get("content"), origin, turn, (*path, "content"), gather)
    gather.rest(message, MESSAGE, origin, turn, path)


def definitions(fields: Object, gather: Gather) -> None:
    names: set[str] = set()
    if fields.get("tools") is not None:
        for index, entry in enumerate(an_array(fields["tools"], ("tools",), gather.limits.tools_max)):
            tool = an_object(entry, ("tools", index))
            kind, said = tool.get("type"), tool.get("name")
            name = said if isinstance(said, str) else str(kind)
            names.add(name)
            gather.tool(name, is_hosted(kind), ("tools", index))
            gather.structured(PartKind.DEFINITION, Origin.SYSTEM, OUTSIDE, ("tools", index), tool, name=name)
    gather.offered = frozenset(names)
    for key in ("output_config", "output_format"):
        shape = fields.get(key)
        if shape is not None:
            shape = an_object(shape, (key,))
            if shape.keys() - {"effort"}:
                gather.structured(PartKind.DEFINITION, Origin.SYSTEM, OUTSIDE, (key,), shape)
            else:
                gather.other(Origin.SYSTEM, OUTSIDE, (key,), shape)


def is_hosted(kind: Json) -> bool:
    if kind is None or kind == "custom":
        return False
    return not (isinstance(kind, str) and kind.startswith(CLIENT_RUN))


def end_user(fields: Object, gather: Gather) -> str:
    """``metadata.user_id``; whatever else stands in metadata is no field of the dialect and becomes a part."""
    said = fields.get("metadata")
    if said is None:
        return ""
    said = an_object(said, ("metadata",))
    gather.rest(said, words("user_id"), Origin.USER, OUTSIDE, ("metadata",))
    return an_end_user(said.get("user_id"), ("metadata", "user_id"), gather.limits)

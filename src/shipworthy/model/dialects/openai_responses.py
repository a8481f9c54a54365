"""OpenAI Responses: requests. Replies are read in ``openai_responses_reply``; what items hold, in ``openai_items``."""

from __future__ import annotations

from shipworthy.model.chat import Dialect, Origin, PartKind, Request
from shipworthy.model.dialects import fields as top
from shipworthy.model.dialects.gather import (
    OUTSIDE,
    Gather,
    a_count,
    a_flag,
    a_model,
    an_array,
    an_end_user,
    an_object,
)
from shipworthy.model.dialects.openai_items import offered_tools, read_item, read_prompt
from shipworthy.model.dialects.openai_responses_reply import decode_event as decode_event
from shipworthy.model.dialects.openai_responses_reply import decode_reply as decode_reply
from shipworthy.model.dialects.strict import LIMITS, Json, Limits, Object, parse_object, raw_fields, words
from shipworthy.model.route import Ability

RULES = top.FieldRules(
    read=words(
        "model input instructions tools prompt previous_response_id conversation text stream max_output_tokens user"
    ),
    # metadata and the identifiers go to the provider's books; include names fields of the answer
    unread=words("metadata safety_identifier prompt_cache_key prompt_cache_options include"),
    hosted={
        "background": frozenset(),
        "background_options": frozenset(),
        "context_management": frozenset(),
        "access_programs": frozenset(),
        "moderation": frozenset(),
        "store": frozenset(),
        "service_tier": words("auto default standard"),
    },
    refused=top.ASIDE,
)


def decode_request(body: bytes, limits: Limits = LIMITS) -> Request:
    """The request that ``body`` is. Raises Refusal decode.*, nothing else, whatever the bytes."""
    fields = parse_object(body, limits)
    model = a_model(fields, limits)
    gather = Gather(limits)
    gather.text(PartKind.TEXT, Origin.SYSTEM, OUTSIDE, ("instructions",), fields.get("instructions"))
    definitions(fields, gather)
    read_state(fields, gather)
    read_input(fields.get("input"), gather)
    top.apply(RULES, fields, gather)
    return Request(
        dialect=Dialect.OPENAI_RESPONSES,
        operation=Ability.CHAT,
        model=model,
        body=body,
        fields=raw_fields(body),
        parts=gather.bounded(),
        tools=tuple(gather.tools),
        stream=a_flag(fields, "stream"),
        include_usage=True,  # the dialect always tells
        output_tokens_asked=a_count(fields, "max_output_tokens"),
        output_tokens_field="max_output_tokens" if fields.get("max_output_tokens") is not None else "",
        end_user=an_end_user(fields.get("user"), ("user",), limits),
    )


def read_input(said: Json, gather: Gather) -> None:
    if said is None:
        return
    if isinstance(said, str):
        gather.text(PartKind.TEXT, Origin.USER, 0, ("input",), said)
        return
    for turn, item in enumerate(an_array(said, ("input",), gather.limits.messages_max)):
        if isinstance(item, str):
            gather.text(PartKind.TEXT, Origin.USER, turn, ("input", turn), item)
        else:
            read_item(an_object(item, ("input", turn)), turn, ("input", turn), gather)


def definitions(fields: Object, gather: Gather) -> None:
    if fields.get("tools") is not None:
        gather.offered = offered_tools(fields["tools"], OUTSIDE, ("tools",), gather)
    text = fields.get("text")
    if text is None:
        return
    text = an_object(text, ("text",))
    shape = text.get("format")
    if shape is not None and shape not in ({"type": "text"}, {"type": "json_object"}):
        gather.structured(PartKind.DEFINITION, Origin.SYSTEM, OUTSIDE, ("text", "format"), shape)
    gather.rest(text, words("format"), Origin.SYSTEM, OUTSIDE, ("text",))


def read_state(fields: Object, gather: Gather) -> None:
    """What the provider has stored and will show to its model: its text is not here, so it cannot be read."""
    for key in ("previous_response_id", "conversation"):
        value = fields.get(key)
        if isinstance(value, str):
            gather.opaque(Origin.USER, OUTSIDE, (key,), value, text=value)
        elif value is not None:
            gather.structured(PartKind.OPAQUE, Origin.USER, OUTSIDE, (key,), value, scannable=False)
    prompt = fields.get("prompt")
    if prompt is not None:
        read_prompt(an_object(prompt, ("prompt",)), gather)

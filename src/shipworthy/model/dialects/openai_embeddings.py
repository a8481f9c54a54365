"""OpenAI embeddings: texts or token arrays in, vectors out (the vectors pass as bytes and are never read)."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from shipworthy.model.chat import Dialect, Event, Origin, PartKind, Request
from shipworthy.model.dialects import fields as top
from shipworthy.model.dialects.figures import openai_usage
from shipworthy.model.dialects.gather import Gather, a_model, an_array, an_end_user, required, wrong_type
from shipworthy.model.dialects.hear import invalid, said_in
from shipworthy.model.dialects.strict import LIMITS, Json, Limits, parse_object, raw_fields, words
from shipworthy.model.prompt import Fitted
from shipworthy.model.route import Ability
from shipworthy.model.splice import splice

RULES = top.FieldRules(
    read=words("model input user"), unread=words("safety_identifier"), hosted={}, refused=words("models extra_body")
)


class Answer(Struct, frozen=True):
    """As much of an answer as is read; the vectors stay bytes."""

    data: list[Raw] | None = None
    usage: Raw = Raw(b"null")
    error: Raw = Raw(b"null")


ANSWER = msgspec.json.Decoder(Answer)


def decode_request(body: bytes, limits: Limits = LIMITS) -> Request:
    """The request that ``body`` is. Raises Refusal decode.*, nothing else, whatever the bytes."""
    fields = parse_object(body, limits)
    model = a_model(fields, limits)
    gather = Gather(limits)
    inputs = read_input(required(fields, "input"), gather)
    top.apply(RULES, fields, gather)
    return Request(
        dialect=Dialect.OPENAI_EMBEDDINGS,
        operation=Ability.EMBED,
        model=model,
        body=body,
        fields=raw_fields(body),
        parts=gather.bounded(),
        tools=tuple(gather.tools),
        end_user=an_end_user(fields.get("user"), ("user",), limits),
        inputs=inputs,
    )


def read_input(said: Json, gather: Gather) -> int:
    """How many texts there are: one string, one array of tokens, or an array of either."""
    if isinstance(said, str):
        if not said:
            wrong_type(("input",), "a string that is not empty")
        gather.text(PartKind.TEXT, Origin.USER, 0, ("input",), said)
        return 1
    if not isinstance(said, list) or not said:
        wrong_type(("input",), "a string, or an array that is not empty")
    if all_tokens(said):
        gather.opaque(Origin.USER, 0, ("input",), said)
        return 1
    for index, entry in enumerate(an_array(said, ("input",), gather.limits.inputs_max)):
        if isinstance(entry, str):
            gather.text(PartKind.TEXT, Origin.USER, index, ("input", index), entry)
        elif isinstance(entry, list) and entry and all_tokens(entry):
            gather.opaque(Origin.USER, index, ("input", index), entry)
        elif isinstance(entry, dict):  # multimodal inputs of compatible servers
            gather.structured(PartKind.OTHER, Origin.USER, index, ("input", index), entry, scannable=False)
        else:
            wrong_type(("input", index), "a string, or an array of token numbers")
    return len(said)


def all_tokens(entries: list[Json]) -> bool:
    return all(type(entry) is int for entry in entries)  # not isinstance: true and false are no tokens


def upstream_body(request: Request, fitted: Fitted, upstream_model: str) -> bytes:
    """The client's bytes with the upstream's model and what ``fitted`` replaces."""
    return splice(request.fields, {**fitted.replace, "model": msgspec.json.encode(upstream_model)})


def decode_reply(body: bytes) -> Event:
    """A whole answer. Raises ProviderFailure INVALID when it is none."""
    try:
        answer = ANSWER.decode(body)
        error: Json = msgspec.json.decode(answer.error)
        usage: Json = msgspec.json.decode(answer.usage)
    except (msgspec.MsgspecError, UnicodeDecodeError) as reason:
        raise invalid(body, f"the answer is not an embeddings answer: {reason}") from reason
    except RecursionError as reason:
        raise invalid(body, "the answer is nested too deeply") from reason
    if error is not None:
        raise invalid(body, f"the provider answered success with an error inside: {said_in(error)}")
    if not answer.data:
        raise invalid(body, "the answer holds no vectors")
    figures, refused = openai_usage(usage)
    return Event(raw=body, usage=figures, usage_refused=refused, opaque=True, done=True)

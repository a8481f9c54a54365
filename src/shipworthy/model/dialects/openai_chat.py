"""OpenAI chat completions: requests in, upstream bodies out. Replies are read in ``openai_chat_reply``.

Written from the published API and its extensions on compatible servers (reasoning fields, legacy ``functions``).
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from shipworthy.model.chat import Dialect, Origin, PartKind, Path, Request
from shipworthy.model.dialects import fields as top
from shipworthy.model.dialects.flat import Sealed
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
from shipworthy.model.dialects.openai_chat_reply import decode_event as decode_event
from shipworthy.model.dialects.openai_chat_reply import decode_reply as decode_reply
from shipworthy.model.dialects.openai_chat_usual_request import ORIGINS, usual_request
from shipworthy.model.dialects.strict import LIMITS, Json, Limits, Object, parse_object, raw_fields, words
from shipworthy.model.errors import Refusal
from shipworthy.model.prompt import Fitted
from shipworthy.model.route import Ability
from shipworthy.model.splice import splice

RULES = top.FieldRules(
    read=words("""model messages tools functions response_format prediction stream stream_options n max_tokens
        max_completion_tokens user"""),
    # user, metadata and the identifiers go to the provider's books, logit_bias maps token numbers
    unread=words("metadata safety_identifier prompt_cache_key logit_bias seed"),
    hosted={
        "web_search_options": frozenset(),
        "web_search": frozenset(),
        "search_parameters": words("off"),
        "enable_search": frozenset(),
        "plugins": frozenset(),
        "provider": frozenset(),
        "route": frozenset(),
        "preset": frozenset(),
        "transforms": frozenset(),
        "moderation": frozenset(),
        "store": frozenset(),
        "service_tier": words("auto default standard"),
    },
    refused=top.ASIDE,
)
MESSAGE = words("role content name tool_calls function_call tool_call_id refusal reasoning_content reasoning audio")
TEXT_PART = words("type text")
REFUSAL_PART = words("type refusal")
MEDIA = {"image_url": PartKind.IMAGE, "input_audio": PartKind.AUDIO, "file": PartKind.FILE}
SEALED: Sealed = {"data": True, "file_data": True, "url": False, "image_url": False}
CLIENT_TOOLS = words("function custom")


def decode_request(body: bytes, limits: Limits = LIMITS) -> Request:
    """The request that ``body`` is. Raises Refusal decode.*, nothing else, whatever the bytes."""
    return usual_request(body, limits) or read_request(body, limits)


def read_request(body: bytes, limits: Limits) -> Request:
    fields = parse_object(body, limits)
    model = a_model(fields, limits)
    gather = Gather(limits)
    definitions(fields, gather)
    for turn, message in enumerate(an_array(required(fields, "messages"), ("messages",), limits.messages_max)):
        read_message(message, turn, gather)
    prediction = fields.get("prediction")
    if prediction is not None:
        prediction = an_object(prediction, ("prediction",))
        content(prediction.get("content"), Origin.USER, OUTSIDE, ("prediction", "content"), gather)
        gather.rest(prediction, TEXT_CONTENT, Origin.USER, OUTSIDE, ("prediction",))
    top.apply(RULES, fields, gather)
    asked, asked_by = output_cap(fields)
    stream = a_flag(fields, "stream")
    include_usage = usage_wanted(fields, gather)
    return Request(
        dialect=Dialect.OPENAI_CHAT,
        operation=Ability.CHAT,
        model=model,
        body=body,
        fields=raw_fields(body),
        parts=gather.bounded(),
        tools=tuple(gather.tools),
        stream=stream,
        include_usage=stream and include_usage,
        output_tokens_asked=asked,
        output_tokens_field=asked_by,
        choices=a_count(fields, "n") or 1,
        end_user=an_end_user(fields.get("user"), ("user",), limits),
    )


TEXT_CONTENT = words("type content")


def usage_wanted(fields: Object, gather: Gather) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    options = an_object(options, ("stream_options",))
    gather.other(Origin.USER, OUTSIDE, ("stream_options",), options)
    return options.get("include_usage") is True


def output_cap(fields: Object) -> tuple[int | None, str]:
    """How many tokens the client wants, and in which field it said so."""
    legacy, current = a_count(fields, "max_tokens"), a_count(fields, "max_completion_tokens")
    if legacy is not None and current is not None:
        raise Refusal("decode.unsupported", feature="max_tokens beside max_completion_tokens")
    if current is not None:
        return current, "max_completion_tokens"
    return legacy, "max_tokens" if legacy is not None else ""


def definitions(fields: Object, gather: Gather) -> None:
    """Tools, legacy functions and the answer's schema: text that the model reads before anything else."""
    names: set[str] = set()
    limit = gather.limits.tools_max
    for key in ("tools", "functions"):
        if fields.get(key) is None:
            continue
        for index, entry in enumerate(an_array(fields[key], (key,), limit)):
            tool = an_object(entry, (key, index))
            kind = str(tool.get("type", "function")) if key == "tools" else "function"
            inner = tool.get(kind) if key == "tools" else tool
            name = inner.get("name") if isinstance(inner, dict) else None
            said = name if isinstance(name, str) else kind
            names.add(said)
            gather.tool(said, kind not in CLIENT_TOOLS, (key, index))
            gather.structured(PartKind.DEFINITION, Origin.SYSTEM, OUTSIDE, (key, index), tool, name=said)
    gather.offered = frozenset(names)
    answer = fields.get("response_format")
    if answer is not None:
        answer = an_object(answer, ("response_format",))
        if answer != {"type": "text"} and answer != {"type": "json_object"}:
            gather.structured(PartKind.DEFINITION, Origin.SYSTEM, OUTSIDE, ("response_format",), answer)


def read_message(message: Json, turn: int, gather: Gather) -> None:
    path: Path = ("messages", turn)
    message = an_object(message, path)
    role = message.get("role")
    if not isinstance(role, str):
        wrong_type((*path, "role"), "a string")
    origin = ORIGINS.get(role)
    if origin is None:  # a server's own role: trusted no more than its user, and templates print it
        origin = Origin.USER
        gather.other(origin, turn, (*path, "role"), role)
    called = ""
    if "tool_call_id" in message:
        called = gather.id(origin, turn, (*path, "tool_call_id"), message["tool_call_id"])
    said = message.get("content")
    kind = PartKind.TOOL_RESULT if origin is Origin.TOOL else PartKind.TEXT
    if isinstance(said, str):
        gather.text(kind, origin, turn, (*path, "content"), said, call_id=called)
    else:
        content(said, origin, turn, (*path, "content"), gather, kind, called)
    if len(message) > ("content" in message) + 1:
        beside_content(message, origin, turn, path, gather)


def beside_content(message: Object, origin: Origin, turn: int, path: Path, gather: Gather) -> None:
    """What a message holds beside role and content."""
    gather.text(PartKind.TEXT, origin, turn, (*path, "name"), message.get("name"))
    gather.text(PartKind.TEXT, origin, turn, (*path, "refusal"), message.get("refusal"))
    for key in ("reasoning_content", "reasoning"):
        value = message.get(key)
        if isinstance(value, str):
            gather.text(PartKind.REASONING, origin, turn, (*path, key), value)
        else:
            gather.other(origin, turn, (*path, key), value)
    calls = message.get("tool_calls")
    if calls is not None:
        for index, call in enumerate(an_array(calls, (*path, "tool_calls"), gather.limits.parts_max)):
            tool_call(call, origin, turn, (*path, "tool_calls", index), gather)
    legacy = message.get("function_call")
    if legacy is not None:
        call_of(an_object(legacy, (*path, "function_call")), origin, turn, (*path, "function_call"), "", gather)
    spoken = message.get("audio")  # an earlier spoken answer, kept by the provider
    if spoken is not None:
        spoken = an_object(spoken, (*path, "audio"))
        heard = gather.id(origin, turn, (*path, "audio", "id"), spoken.get("id"))
        gather.opaque(origin, turn, (*path, "audio"), spoken, text=heard)
        gather.rest(spoken, words("id"), origin, turn, (*path, "audio"))
    gather.rest(message, MESSAGE, origin, turn, path)


def tool_call(call: Json, origin: Origin, turn: int, path: Path, gather: Gather) -> None:
    call = an_object(call, path)
    call_id = gather.id(origin, turn, (*path, "id"), call.get("id"))
    for kind in CLIENT_TOOLS:
        inner = call.get(kind)
        if inner is not None:
            call_of(an_object(inner, (*path, kind)), origin, turn, (*path, kind), call_id, gather)
    gather.rest(call, TOOL_CALL, origin, turn, path)


TOOL_CALL = words("id type index function custom")
CALLED = words("name arguments input")


def call_of(inner: Object, origin: Origin, turn: int, path: Path, call_id: str, gather: Gather) -> None:
    """The arguments of one call: a string of JSON (function), or free text (custom)."""
    name = gather.called(origin, turn, (*path, "name"), inner.get("name"))
    for key in ("arguments", "input"):
        value = inner.get(key)
        if isinstance(value, (dict, list)):  # some servers take parsed arguments
            gather.structured(PartKind.TOOL_CALL, origin, turn, (*path, key), value, name=name, call_id=call_id)
        else:
            gather.text(PartKind.TOOL_CALL, origin, turn, (*path, key), value, name=name, call_id=call_id)
    gather.rest(inner, CALLED, origin, turn, path)


def content(
    said: Json,
    origin: Origin,
    turn: int,
    path: Path,
    gather: Gather,
    kind: PartKind = PartKind.TEXT,
    call_id: str = "",
) -> None:
    """A message's content: a string, or an array of typed parts."""
    if isinstance(said, str) or said is None:
        gather.text(kind, origin, turn, path, said, call_id=call_id)
        return
    if not isinstance(said, list):
        wrong_type(path, "a string or an array of parts")
    for index, entry in enumerate(an_array(said, path, gather.limits.parts_max)):
        at = (*path, index)
        if isinstance(entry, str):
            gather.text(kind, origin, turn, at, entry, call_id=call_id)
            continue
        part = an_object(entry, at)
        match part.get("type"):
            case "text":
                gather.text(kind, origin, turn, (*at, "text"), part.get("text"), call_id=call_id)
                gather.rest(part, TEXT_PART, origin, turn, at)
            case "refusal":
                gather.text(kind, origin, turn, (*at, "refusal"), part.get("refusal"), call_id=call_id)
                gather.rest(part, REFUSAL_PART, origin, turn, at)
            case "image_url" | "input_audio" | "file" as medium:
                media(part, MEDIA[medium], medium, origin, turn, at, gather)
            case _:
                gather.structured(PartKind.OTHER, origin, turn, at, part, scannable=False)


def media(part: Object, kind: PartKind, medium: str, origin: Origin, turn: int, path: Path, gather: Gather) -> None:
    """An image, sound or file: never readable here, but its name and address are text."""
    inner = part.get(medium)
    name, media_type = "", ""
    if isinstance(inner, dict):
        said = inner.get("filename")
        name = said if isinstance(said, str) else ""
        media_type = type_of(inner.get("url") or inner.get("file_data"))
        if medium == "input_audio" and isinstance(inner.get("format"), str):
            media_type = f"audio/{inner['format']}"
    elif medium == "image_url" and isinstance(inner, str):
        media_type = type_of(inner)
    else:
        wrong_type((*path, medium), "an object")
    gather.structured(
        kind, origin, turn, path, part, name=name, media_type=media_type, sealed=SEALED, scannable=False
    )  # fmt: skip


def type_of(url: Json) -> str:
    """The media type that a ``data:`` URL names."""
    if not isinstance(url, str) or not url.startswith("data:"):
        return ""
    return url[5:200].partition(",")[0].partition(";")[0]


def upstream_body(
    request: Request, fitted: Fitted, upstream_model: str, *, ask_usage: bool = True, cap_field: str = "max_tokens"
) -> bytes:
    """The client's bytes with the upstream's model, the cap on output, and what ``fitted`` replaces.

    The cap goes where the client put its own, else into ``cap_field`` (``max_tokens`` is what compatible servers know;
    OpenAI's reasoning models want ``max_completion_tokens``). ``ask_usage`` adds ``stream_options.include_usage`` to a
    stream and keeps the client's other stream options.
    """
    replace = dict(fitted.replace)
    replace["model"] = msgspec.json.encode(upstream_model)
    if request.output_tokens_asked != fitted.output_tokens_max:
        assert fitted.output_tokens_max > 0, "a request without a cap on its output is never sent"
        replace.setdefault(request.output_tokens_field or cap_field, b"%d" % fitted.output_tokens_max)
    if request.stream and ask_usage and not request.include_usage:
        replace["stream_options"] = with_usage(replace.get("stream_options") or request.fields.get("stream_options"))
    return splice(request.fields, replace)


def with_usage(options: bytes | Raw | None) -> bytes:
    """A stream's options with usage asked for."""
    if options is None:
        return ONLY_USAGE
    return splice(OPTIONS.decode(bytes(options)) or {}, {"include_usage": b"true"})


ONLY_USAGE = b'{"include_usage":true}'
OPTIONS = msgspec.json.Decoder(dict[str, Raw] | None)

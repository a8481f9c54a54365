"""Anthropic Messages: what a provider answers, whole or as one server-sent event."""

from __future__ import annotations

from shipworthy.model.chat import Delta, DeltaKind, Event, Path
from shipworthy.model.dialects.figures import anthropic_usage
from shipworthy.model.dialects.flat import Sealed
from shipworthy.model.dialects.hear import Hearing, a_string, an_index, array_of_objects, invalid, payload_object
from shipworthy.model.dialects.strict import Json, Object, words

MESSAGE = words("id type role model content stop_reason stop_sequence stop_details usage container diagnostics error")
CIPHERED: Sealed = {
    "encrypted_content": True, "encrypted_stdout": True, "encrypted_index": True, "signature": True, "data": True
}  # fmt: skip
BLOCK = words("type text thinking signature data id name input tool_use_id content index")
QUIET = words("content_block_stop ping")


def decode_reply(body: bytes) -> Event:
    """A whole answer. Raises ProviderFailure INVALID when it is none."""
    said = payload_object(body)
    hearing = Hearing()
    if "content" not in said:
        raise invalid(body, "the answer holds no content")
    read_message(said, (), body, hearing)
    return hearing.event(body, "", anthropic_usage(said.get("usage")), done=True)


def decode_event(payload: bytes, event_name: str = "") -> Event:
    """One server-sent event. Raises ProviderFailure INVALID when it is none of this dialect's."""
    said = payload_object(payload)
    hearing = Hearing()
    kind = said.get("type")
    match kind:
        case "content_block_delta":
            read_delta(said, payload, hearing)
        case "content_block_start":
            block = an_inner(said, "content_block", payload)
            read_block(block, an_index(said.get("index"), payload), ("content_block",), payload, hearing)
        case "message_start":
            message = an_inner(said, "message", payload)
            read_message(message, ("message",), payload, hearing)
            return hearing.event(payload, event_name, anthropic_usage(message.get("usage")))
        case "message_delta":
            delta = an_inner(said, "delta", payload)
            finish(delta, hearing)
            hearing.rest(0, delta, MESSAGE, ("delta",))
            return hearing.event(payload, event_name, anthropic_usage(said.get("usage")))
        case "message_stop":
            return Event(raw=payload, name=event_name, done=True)
        case str() if kind in QUIET:
            pass
        case str():
            hearing.rest(0, said, words("type index"), ())
        case _:
            raise invalid(payload, "the event has no type")
    return hearing.event(payload, event_name)


def an_inner(said: Object, key: str, payload: bytes) -> Object:
    inner = said.get(key)
    if not isinstance(inner, dict):
        raise invalid(payload, f"the event holds no {key}")
    return inner


def read_message(message: Object, path: Path, payload: bytes, hearing: Hearing) -> None:
    for index, block in enumerate(array_of_objects(message.get("content"), payload, "content")):
        read_block(block, index, (*path, "content", index), payload, hearing)
    finish(message, hearing)
    hearing.rest(0, message, MESSAGE, path)


def finish(said: Object, hearing: Hearing) -> None:
    reason = said.get("stop_reason")
    if isinstance(reason, str):
        hearing.finish.append((0, reason))
    details = said.get("stop_details")
    if isinstance(details, dict):
        hearing.rest(0, details, words("type category"), ("stop_details",))


def read_block(block: Object, index: int, path: Path, payload: bytes, hearing: Hearing) -> None:
    kind = block.get("type")
    match kind:
        case "text":
            hearing.text(0, DeltaKind.TEXT, (*path, "text"), block.get("text"))
        case "thinking":
            hearing.text(0, DeltaKind.REASONING, (*path, "thinking"), block.get("thinking"))
        case "redacted_thinking":
            hearing.opaque = True
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            read_call(block, index, path, hearing)
        case str() if kind.endswith("_tool_result"):
            call_id = a_string(block.get("tool_use_id"))
            content: Json = block.get("content")
            hearing.structured(
                0, DeltaKind.TOOL_RESULT, (*path, "content"), content, call=index, call_id=call_id, sealed=CIPHERED
            )
        case _:
            hearing.opaque = True
            hearing.structured(0, DeltaKind.OTHER, path, block, sealed=CIPHERED)
            return
    hearing.rest(0, block, BLOCK, path)


def read_call(block: Object, index: int, path: Path, hearing: Hearing) -> None:
    """A call begins with empty arguments on a stream, and is whole in an answer."""
    call_id, name = a_string(block.get("id")), a_string(block.get("name"))
    at = (*path, "input")
    if block.get("input"):
        hearing.structured(0, DeltaKind.TOOL_CALL, at, block["input"], call=index, call_id=call_id, name=name)
    else:
        hearing.text(0, DeltaKind.TOOL_CALL, at, "", call=index, call_id=call_id, name=name)


def read_delta(said: Object, payload: bytes, hearing: Hearing) -> None:
    index = an_index(said.get("index"), payload)
    delta = an_inner(said, "delta", payload)
    match delta.get("type"):
        case "text_delta":
            hearing.text(0, DeltaKind.TEXT, ("delta", "text"), delta.get("text"))
        case "input_json_delta":
            text = a_string(delta.get("partial_json"))
            if text:
                hearing.deltas.append(Delta(0, DeltaKind.TOOL_CALL, text, ("delta", "partial_json"), call=index))
        case "thinking_delta":
            hearing.text(0, DeltaKind.REASONING, ("delta", "thinking"), delta.get("thinking"))
        case "signature_delta":
            pass
        case _:  # citations quote a source; what comes later is text all the same
            hearing.structured(0, DeltaKind.OTHER, ("delta",), delta, sealed=CIPHERED)
            return
    hearing.rest(0, delta, words("type text partial_json thinking signature"), ("delta",))

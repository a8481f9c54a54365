"""OpenAI Responses: what a provider answers, whole or as one server-sent event.

The stream says everything up to three times: in deltas, in ``*.done`` events and in the final response. Whatever comes again
is marked ``repeat``: inspected, not counted.
"""

from __future__ import annotations

from shipworthy.model.chat import DeltaKind, Event, Path
from shipworthy.model.dialects.figures import responses_usage
from shipworthy.model.dialects.flat import Sealed
from shipworthy.model.dialects.hear import (
    Hearing,
    a_string,
    an_index,
    array_of_objects,
    invalid,
    payload_object,
    said_in,
)
from shipworthy.model.dialects.strict import Json, Object, words

TEXTS = {
    "response.output_text": DeltaKind.TEXT,
    "response.refusal": DeltaKind.REFUSAL,
    "response.reasoning_text": DeltaKind.REASONING,
    "response.reasoning_summary_text": DeltaKind.REASONING,
    "response.function_call_arguments": DeltaKind.TOOL_CALL,
    "response.custom_tool_call_input": DeltaKind.TOOL_CALL,
    "response.mcp_call_arguments": DeltaKind.TOOL_CALL,
    "response.code_interpreter_call_code": DeltaKind.TOOL_CALL,
    "response.shell_call_command": DeltaKind.TOOL_CALL,
    "response.shell_call_output_content": DeltaKind.TOOL_RESULT,
    "response.audio.transcript": DeltaKind.AUDIO,
}
SAID = ("delta", "text", "refusal", "arguments", "input", "code", "command", "output", "transcript")
PLACED = words(
    "type sequence_number item_id output_index content_index summary_index annotation_index command_index obfuscation name"
)
SEALED: Sealed = {"encrypted_content": True, "result": True, "partial_image_b64": True, "delta": True}
LAST = words("response.completed response.incomplete")
ITEM = words("type id status role content summary arguments input name call_id encrypted_content phase")


def decode_reply(body: bytes) -> Event:
    """A whole answer. Raises ProviderFailure INVALID when it is none."""
    said = payload_object(body)
    if not isinstance(said.get("output"), list):
        raise invalid(body, "the answer holds no output")
    hearing = Hearing()
    read_response(said, (), body, hearing, repeat=False)
    return hearing.event(body, "", responses_usage(said.get("usage")), done=True)


def decode_event(payload: bytes, event_name: str = "") -> Event:
    """One server-sent event. Raises ProviderFailure INVALID when it is none of this dialect's."""
    said = payload_object(payload)
    kind = said.get("type")
    if not isinstance(kind, str):
        raise invalid(payload, "the event has no type")
    if kind == "error":
        raise invalid(payload, f"the provider broke off with an error: {said_in(said)}")
    hearing = Hearing()
    response = said.get("response")
    if isinstance(response, dict):
        if kind == "response.failed" or response.get("error") is not None:
            raise invalid(payload, f"the provider broke off with an error: {said_in(response.get('error'))}")
        read_response(response, ("response",), payload, hearing, repeat=True)
        return hearing.event(payload, event_name, responses_usage(response.get("usage")), done=kind in LAST)
    read_piece(said, kind, payload, hearing)
    return hearing.event(payload, event_name)


def read_piece(said: Object, kind: str, payload: bytes, hearing: Hearing) -> None:
    """An event that carries a part of an item, or a whole one."""
    index = an_index(said.get("output_index"), payload)
    stem, _, phase = kind.rpartition(".")
    delta = TEXTS.get(stem)
    repeat = phase == "done"
    if delta is not None:
        for key in SAID:
            value: Json = said.get(key)
            if value is not None:
                hearing.text(0, delta, (key,), value, call=index, name=a_string(said.get("name")), repeat=repeat)
        read_logprobs(said, hearing)
        hearing.rest(0, said, PLACED | frozenset(SAID) | {"logprobs"}, ())
        return
    item = said.get("item")
    if isinstance(item, dict):
        read_item(item, index, ("item",), payload, hearing, repeat=repeat)
    part = said.get("part")
    if isinstance(part, dict):
        read_part(part, DeltaKind.TEXT, ("part",), hearing, repeat=repeat)
    others = {key: value for key, value in said.items() if key not in PLACED and key not in ("item", "part")}
    if others:  # annotations, partial images, whatever comes next year
        hearing.opaque = hearing.opaque or "partial_image_b64" in others or kind == "response.audio.delta"
        hearing.structured(0, DeltaKind.OTHER, (), others, sealed=SEALED)


def read_logprobs(said: Object, hearing: Hearing) -> None:
    entries = said.get("logprobs")
    if isinstance(entries, list) and entries:
        words_said = [a_string(entry.get("token")) if isinstance(entry, dict) else "" for entry in entries]
        hearing.text(0, DeltaKind.TEXT, ("logprobs",), "".join(words_said), repeat=True)


def read_response(response: Object, path: Path, payload: bytes, hearing: Hearing, *, repeat: bool) -> None:
    for index, item in enumerate(array_of_objects(response.get("output"), payload, "output")):
        read_item(item, index, (*path, "output", index), payload, hearing, repeat=repeat)
    status = response.get("status")
    details = response.get("incomplete_details")
    if isinstance(details, dict) and isinstance(details.get("reason"), str):
        hearing.finish.append((0, str(details["reason"])))
    elif isinstance(status, str) and status not in ("queued", "in_progress"):
        hearing.finish.append((0, status))


def read_item(item: Object, index: int, path: Path, payload: bytes, hearing: Hearing, *, repeat: bool) -> None:
    kind = item.get("type")
    hearing.opaque = hearing.opaque or bool(item.get("encrypted_content"))
    match kind:
        case "message" | "reasoning":
            delta = DeltaKind.TEXT if kind == "message" else DeltaKind.REASONING
            for key in ("summary", "content"):
                for position, part in enumerate(array_of_objects(item.get(key), payload, key)):
                    read_part(part, delta, (*path, key, position), hearing, repeat=repeat)
            hearing.rest(0, item, ITEM, path)
        case "function_call" | "custom_tool_call":
            key = "arguments" if kind == "function_call" else "input"
            value: Json = item.get(key)
            hearing.text(
                0,
                DeltaKind.TOOL_CALL,
                (*path, key),
                "" if value is None else value,
                call=index,
                call_id=a_string(item.get("call_id")),
                name=a_string(item.get("name")),
                repeat=repeat,
            )
            hearing.rest(0, item, ITEM, path)
        case _:
            hosted = isinstance(kind, str) and kind.endswith("_call")
            found = DeltaKind.TOOL_RESULT if hosted else DeltaKind.OTHER
            hearing.structured(0, found, path, item, call=index, repeat=repeat, sealed=SEALED)


def read_part(part: Object, kind: DeltaKind, path: Path, hearing: Hearing, *, repeat: bool) -> None:
    """A content part; ``*.added`` ones are empty on a stream and whole in an answer."""
    hearing.text(0, kind, (*path, "text"), part.get("text"), repeat=repeat)
    hearing.text(0, DeltaKind.REFUSAL, (*path, "refusal"), part.get("refusal"), repeat=repeat)
    hearing.rest(0, part, words("type text refusal logprobs"), path)

"""OpenAI chat completions: what a provider answers, whole or as one server-sent event."""

from __future__ import annotations

import msgspec

from shipworthy.model.chat import Delta, DeltaKind, Event, Path
from shipworthy.model.dialects.figures import openai_usage
from shipworthy.model.dialects.hear import Hearing, a_string, an_index, array_of_objects, invalid, payload_object
from shipworthy.model.dialects.openai_chat_usual import usual_event, usual_reply
from shipworthy.model.dialects.strict import Json, Object, words

DONE = b"[DONE]"
TOP = words("id object created model system_fingerprint service_tier obfuscation choices usage error")
CHOICE = words("index delta message finish_reason logprobs stop_reason native_finish_reason")
MESSAGE = words("role content refusal reasoning_content reasoning tool_calls function_call audio")
CALL = words("index id type function custom")
CALLED = words("name arguments input")
AUDIO = words("id data expires_at transcript")


def decode_reply(body: bytes) -> Event:
    """A whole answer. Raises ProviderFailure INVALID when it is none."""
    return usual_reply(body) or read_reply(body)


def decode_event(payload: bytes, event_name: str = "") -> Event:
    """One server-sent event. Raises ProviderFailure INVALID when it is none of this dialect's."""
    if payload == DONE:
        return Event(raw=DONE, done=True)
    return usual_event(payload, event_name) or read_event(payload, event_name)


def read_reply(body: bytes) -> Event:
    return read(payload_object(body), body, "", "message", done=True)


def read_event(payload: bytes, event_name: str) -> Event:
    if payload.strip() == DONE:
        return Event(raw=DONE, done=True)
    return read(payload_object(payload), payload, event_name, "delta", done=False)


def read(said: Object, payload: bytes, event_name: str, key: str, *, done: bool) -> Event:
    if "choices" not in said:
        raise invalid(payload, "the answer holds no choices")
    choices = array_of_objects(said["choices"], payload, "choices")
    hearing = Hearing()
    for position, choice in enumerate(choices):
        read_choice(choice, position, key, payload, hearing)
    if said.keys() - TOP:
        hearing.rest(0, said, TOP, ())
    event = hearing.event(payload, event_name, openai_usage(said.get("usage")), done=done)
    if not choices and said.get("usage") is not None and not event.deltas:
        return msgspec.structs.replace(event, usage_only=not done)
    return event


def read_choice(choice: Object, position: int, key: str, payload: bytes, hearing: Hearing) -> None:
    index = an_index(choice.get("index"), payload, position)
    path: Path = ("choices", position)
    said = choice.get(key)
    if isinstance(said, dict):
        read_message(said, index, (*path, key), payload, hearing)
    elif said is not None or key == "message":
        raise invalid(payload, f"a choice holds no {key}")
    reason = choice.get("finish_reason")
    if reason is not None and not isinstance(reason, str):
        raise invalid(payload, "a finish_reason is not a string")
    if reason:  # some servers send "" with every piece: nothing has ended
        hearing.finish.append((index, reason))
    tokens = choice.get("logprobs")
    if isinstance(tokens, dict):
        read_logprobs(tokens, index, (*path, "logprobs"), hearing)
    hearing.rest(index, choice, CHOICE, path)


def read_message(said: Object, choice: int, path: Path, payload: bytes, hearing: Hearing) -> None:
    content = said.get("content")
    if content:
        hearing.text(choice, DeltaKind.TEXT, (*path, "content"), content)
    if len(said) == 1 and "content" in said:
        return
    hearing.text(choice, DeltaKind.REFUSAL, (*path, "refusal"), said.get("refusal"))
    hearing.text(choice, DeltaKind.REASONING, (*path, "reasoning_content"), said.get("reasoning_content"))
    # servers that send both names say the same twice
    twice = "reasoning_content" in said and said["reasoning_content"] == said.get("reasoning")
    hearing.text(choice, DeltaKind.REASONING, (*path, "reasoning"), said.get("reasoning"), repeat=twice)
    for position, call in enumerate(array_of_objects(said.get("tool_calls"), payload, "tool_calls")):
        read_call(call, position, choice, (*path, "tool_calls", position), payload, hearing)
    legacy = said.get("function_call")
    if isinstance(legacy, dict):
        read_called(legacy, choice, (*path, "function_call"), 0, "", hearing)
    audio = said.get("audio")
    if isinstance(audio, dict):
        hearing.opaque = hearing.opaque or bool(audio.get("data"))
        hearing.text(choice, DeltaKind.AUDIO, (*path, "audio", "transcript"), audio.get("transcript"))
        hearing.rest(choice, audio, AUDIO, (*path, "audio"))
    hearing.rest(choice, said, MESSAGE, path)


def read_call(call: Object, position: int, choice: int, path: Path, payload: bytes, hearing: Hearing) -> None:
    index = an_index(call.get("index"), payload, position)
    call_id = a_string(call.get("id"))
    for kind in ("function", "custom"):
        inner = call.get(kind)
        if isinstance(inner, dict):
            read_called(inner, choice, (*path, kind), index, call_id, hearing)
    hearing.rest(choice, call, CALL, path)


def read_called(inner: Object, choice: int, path: Path, call: int, call_id: str, hearing: Hearing) -> None:
    name = a_string(inner.get("name"))
    key = "input" if inner.get("input") is not None else "arguments"
    value: Json = inner.get(key)
    value = "" if value is None else value
    hearing.text(choice, DeltaKind.TOOL_CALL, (*path, key), value, call=call, call_id=call_id, name=name)
    hearing.rest(choice, inner, CALLED, path)


def read_logprobs(tokens: Object, choice: int, path: Path, hearing: Hearing) -> None:
    """The tokens say the text again, one by one: joined, so that a guard sees words."""
    for key, entries in tokens.items():
        if not isinstance(entries, list):
            continue
        words = [a_string(entry.get("token")) if isinstance(entry, dict) else "" for entry in entries]
        if any(words):
            joined = "".join(words)
            hearing.deltas.append(Delta(choice, DeltaKind.TEXT, joined, (*path, key), structured=True, repeat=True))

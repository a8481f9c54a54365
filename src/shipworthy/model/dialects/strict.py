"""Bytes to JSON, once, refusing whatever two readers could read differently.

Why not msgspec alone: it keeps the last of two equal keys in silence, and a provider that keeps the first would answer
a text that no guard saw. The C scanner of ``json`` shows every object's pairs, at any depth, in one pass.
"""

from __future__ import annotations

import json
from typing import NoReturn, TypeAlias

import msgspec
from msgspec import Raw, Struct

from shipworthy.model.errors import Refusal

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Object: TypeAlias = dict[str, Json]

KEY_SHOWN_CHARS_MAX = 64
WHITESPACE = " \t\n\r"


class Limits(Struct, frozen=True):
    """The named maxima of a body. Its size in bytes is the edge's to bound, before decode sees it."""

    depth_max: int = 64
    values_max: int = 500_000  # entries of all objects and arrays together
    messages_max: int = 4_096  # messages, items
    parts_max: int = 16_384
    tools_max: int = 1_024
    inputs_max: int = 2_048  # texts of an embeddings request
    model_chars_max: int = 256
    end_user_chars_max: int = 512


LIMITS = Limits()


def words(said: str) -> frozenset[str]:
    """Names of fields, written as one line."""
    return frozenset(said.split())


class DuplicateKey(Exception):
    """An object holds this key twice."""


def unique(pairs: list[tuple[str, Json]]) -> Object:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKey(key)
            seen.add(key)
    return fields


def refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


SCANNER = json.JSONDecoder(object_pairs_hook=unique, parse_constant=refuse_constant)
FIELDS = msgspec.json.Decoder(dict[str, Raw])


def parse_object(body: bytes, limits: Limits = LIMITS) -> Object:
    """The JSON object that ``body`` is. Raises Refusal decode.not_utf8, not_json, too_deep, duplicate_key, wrong_type."""
    if len(body) > limits.values_max and crowding(body) > limits.values_max:  # fewer bytes cannot hold as many
        refuse_crowd(body, limits)
    try:
        text = body.decode()
    except UnicodeDecodeError as reason:
        raise Refusal("decode.not_utf8", detail=f"at byte {reason.start}: {reason.reason}") from reason
    value = scan(text, limits)
    if not isinstance(value, dict):
        raise Refusal("decode.wrong_type", field="body", wanted="a JSON object")
    if "\\" in text and ("\\ud" in text or "\\uD" in text):  # most texts hold no escape at all
        refuse_lone_surrogates(body)
    if body.count(b"{") + body.count(b"[") > limits.depth_max:  # only then can it be too deep
        refuse_depth(value, limits)
    return value


def scan(text: str, limits: Limits) -> Json:
    start = 0 if text[:1] == "{" else len(text) - len(text.lstrip(WHITESPACE))
    if start == len(text):
        raise Refusal("decode.not_json", reason="the body is empty")
    value: Json
    try:
        value, end = SCANNER.raw_decode(text, start)
    except DuplicateKey as twice:
        raise Refusal("decode.duplicate_key", key=shown(str(twice))) from twice
    except json.JSONDecodeError as reason:
        raise Refusal(
            "decode.not_json", reason=f"{reason.msg.removesuffix(' at')} at character {reason.pos}"
        ) from reason
    except RecursionError as reason:
        raise Refusal("decode.too_deep", limit=limits.depth_max) from reason
    except ValueError as reason:  # NaN and Infinity; integers of more digits than the interpreter reads
        raise Refusal("decode.not_json", reason=str(reason).partition(";")[0]) from reason
    if end != len(text) and text[end:].strip(WHITESPACE):
        raise Refusal("decode.not_json", reason=f"something follows the JSON value at character {end}")
    return value


def refuse_lone_surrogates(body: bytes) -> None:
    """Half a character can be neither encoded, stored nor hashed; msgspec reads the escapes as the RFC demands."""
    try:
        msgspec.json.decode(body)
    except msgspec.MsgspecError as reason:
        raise Refusal("decode.not_json", reason="a \\u escape is half of a surrogate pair") from reason


def crowding(body: bytes) -> int:
    return body.count(b",") + body.count(b"{") + body.count(b"[")


def refuse_crowd(body: bytes, limits: Limits) -> None:
    """Counts the entries outside strings, before a parser makes objects of them: [] costs 2 bytes here and 56 there.

    Without escapes a quote begins or ends a string. The loop gives others their turn, as the parser would not.
    """
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    at, entries, strings = 0, 0, 0
    while at >= 0:
        quote = bare.find(b'"', at)
        end = len(bare) if quote < 0 else quote
        entries += bare.count(b",", at, end) + bare.count(b"[", at, end) + bare.count(b"{", at, end)
        if entries > limits.values_max or strings > 2 * limits.values_max:  # an entry is a key and a value at most
            raise Refusal("decode.too_many", field="body", limit=limits.values_max)
        if quote < 0:
            return
        strings += 1
        at = bare.find(b'"', quote + 1) + 1 or -1


def refuse_depth(root: Json, limits: Limits) -> None:
    """Walks the containers level by level. A Python loop on purpose: in a thread it lets others run."""
    level: list[Json] = [root]
    for _ in range(limits.depth_max):
        inner: list[Json] = []
        for container in level:
            children = container.values() if isinstance(container, dict) else container
            assert not isinstance(children, (str, int, float)) and children is not None
            inner.extend(child for child in children if isinstance(child, (dict, list)))
        if not inner:
            return
        level = inner
    raise Refusal("decode.too_deep", limit=limits.depth_max)


def raw_fields(body: bytes) -> dict[str, Raw]:
    """The top-level values as bytes, in the client's order. ``body`` is already known to be good."""
    try:
        return FIELDS.decode(body)
    except msgspec.MsgspecError as reason:
        raise Refusal("decode.not_json", reason="it is not JSON as RFC 8259 has it", detail=str(reason)) from reason


def shown(key: str) -> str:
    """A client's own word, short enough to be said back to it."""
    return key if len(key) <= KEY_SHOWN_CHARS_MAX else key[:KEY_SHOWN_CHARS_MAX] + "…"

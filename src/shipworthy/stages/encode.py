"""encode: what an inspected event looks like to the client. Same dialect in and out: its own bytes."""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from shipworthy.model.chat import Dialect, Event, Request
from shipworthy.model.op import Op

FIELDS = msgspec.json.Decoder(dict[str, Raw])
ENCODER = msgspec.json.Encoder()

USAGE = b'"usage"'
NULL_THEN_TEXTS = re.compile(rb'"usage":null((?:,"(?!usage")[a-z_]+":"[^"\\]*")*\})')
"""Why a payload that ends like this, with a comma before, may be cut without parsing it: the payload is an object, so its
last byte closes the root. The quote before ``usage`` follows a comma directly; inside a string it would follow a backslash,
and a quote that closes a string is never followed by a letter. So it opens a key. Nothing but members whose values are
strings without quotes follows, so the key's object ends with the root."""


def encode(op: Op, request: Request, event: Event) -> bytes:
    """The payload of ``event`` for the client, b"" for one that it did not ask for.

    Usage is always asked of the upstream; a chat stream whose client did not ask is given none of it.
    """
    raw = event.raw
    if not event.usage_only and USAGE not in raw:
        return raw
    asked_here_only = request.stream and not request.include_usage and request.dialect is Dialect.OPENAI_CHAT
    if not asked_here_only:
        return raw
    return b"" if event.usage_only else without_usage(raw)


def without_usage(payload: bytes) -> bytes:
    at = payload.find(USAGE)
    if at < 0:
        return payload
    found = NULL_THEN_TEXTS.fullmatch(payload, at)
    if found is not None and payload[at - 1 : at] == b",":
        return payload[: at - 1] + found[1]
    fields = FIELDS.decode(payload)
    if fields.pop("usage", None) is None:  # the model's own words, or a key further in
        return payload
    return ENCODER.encode(fields)

"""The rows of a batch as the columns that ``kept_rows`` (migration 0035) takes: what repeats goes once, the rest in arrays.

Most of a row says what many rows of its batch say: who asked by which rules for which model. Such fields make up one JSON
object, which the store takes apart once for all rows that point to it. What a request has of its own goes typed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

import msgspec

from shipworthy.adapters.store import arrays
from shipworthy.adapters.store.rows import clean_text, encode
from shipworthy.model.exchange import Row

ALIKE = (
    "tenant", "environment", "region", "kind", "team", "role", "actor", "issuer", "key_id", "use_case", "alias", "operation",
    "dialect", "mode", "data_class", "clearance", "release_digest", "manifest_digest", "rules", "strategy", "outcome",
    "refusal_code", "model", "provider", "source", "stream", "finish", "cut", "flags",
)  # fmt: skip
WEIGHED = ("candidates", "receipts")  # apart: a strategy's scores may differ with each request
TEXTS = ("subject", "end_user", "session", "traceparent", "refusal_detail")
DOCUMENTS = ("attempts", "steps", "passage_ids", "usage", "charge_lines")
FIGURES = (
    "estimated_nano", "held_nano", "overrun_nano", "duration_ns", "first_token_ns", "request_bytes", "reply_bytes",
)  # fmt: skip

UNSAID = {
    "steps": b',"tokens":0,"cost_nano":0,"refused":""',
    "attempts": b',"detail":"","sent":true,"usage":null',
    "usage": b',"cache_read":0,"cache_write":0,"reasoning":0,"input_audio":0,"output_audio":0,"images":0',
}
"""What most of them say, in JSON. Left out: it is what the types say by themselves, and no SQL asks for it. Never part of a
text, in which quotes have backslashes before them."""

_NUL, _NUL_IN_JSON = b"\0", b"\\u0000"
_encode_lines = msgspec.json.Encoder().encode_lines
_of_alike, _of_weighed = attrgetter(*ALIKE), attrgetter(*WEIGHED)
_TEXTS, _DOCUMENTS, _FIGURES = ([(name, attrgetter(name)) for name in names] for names in (TEXTS, DOCUMENTS, FIGURES))


def columns(rows: Sequence[Row]) -> dict[str, arrays.Ready]:
    """By the names of the parameters; ids, what is charged and what bodies tell are not among them."""
    made: dict[str, arrays.Ready] = {}
    made["alike"], made["alike_of"] = _distinct(rows, ALIKE, _of_alike)
    made["weighed"], made["weighed_of"] = _distinct(rows, WEIGHED, _of_weighed)
    for name, of in _TEXTS:
        made[name] = arrays.utf8s(_texts(list(map(of, rows))))
    for name, of in _DOCUMENTS:
        made[name] = arrays.utf8s(_documents(list(map(of, rows)), UNSAID.get(name, b"")))
    for name, of in _FIGURES:
        made[name] = arrays.bigints(list(map(of, rows)))
    made["row_lease"] = arrays.uuids([row.lease_id for row in rows])
    return made


def _distinct(
    rows: Sequence[Row], names: Sequence[str], of: Callable[[Row], tuple[object, ...]]
) -> tuple[arrays.Ready, arrays.Ready]:
    """What the fields ``names`` hold, each combination once as a JSON object; and which (from 1) is whose."""
    places: dict[tuple[object, ...], int] = {}
    place_of = [places.setdefault(of(row), len(places) + 1) for row in rows]
    texts = [encode(dict(zip(names, values, strict=True))) for values in places]
    return arrays.utf8s(texts), arrays.integers(place_of)


def _texts(values: Sequence[str]) -> list[bytes]:
    """What the store cannot hold is rare: only where there is some, each text is looked through."""
    try:
        encoded = [value.encode() for value in values]
    except UnicodeEncodeError:  # a lone surrogate
        return [clean_text(value).encode() for value in values]
    if _NUL in b"".join(encoded):
        return [clean_text(value).encode() for value in values]
    return encoded


def _documents(values: Sequence[object], unsaid: bytes = b"") -> list[bytes]:
    """The same for JSON, without ``unsaid``. Lines: what one text holds of line feeds is escaped in JSON."""
    try:
        lines = _encode_lines(values)
    except UnicodeEncodeError:
        lines = b""
    if not lines or _NUL_IN_JSON in lines:
        lines = b"".join([encode(value) + b"\n" for value in values])
    if unsaid:
        lines = lines.replace(unsaid, b"")
    return lines[:-1].split(b"\n")

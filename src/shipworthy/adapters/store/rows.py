"""A Row on its way into the store and back: JSON by the names of the table's columns.

PostgreSQL takes no NUL in text and no ``\\u0000`` in jsonb, and UTF-8 has no lone surrogates; a client can send either
inside a JSON string. They become U+FFFD here, so that a hostile byte costs itself and not the record.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shipworthy.model.exchange import Row

REPLACEMENT = "\ufffd"
COLUMNS: tuple[str, ...] = Row.__struct_fields__
"""The columns of ``exchange`` that make up a Row, in the order of its fields."""

_encode = msgspec.json.Encoder().encode


def encode(value: object) -> bytes:
    """JSON that jsonb takes."""
    try:
        text = _encode(value)
    except UnicodeEncodeError:  # a lone surrogate
        return _encode(clean(msgspec.to_builtins(value)))
    if b"\\u0000" in text:  # rarely a backslash before a literal u0000, which cleaning leaves as it is
        return _encode(clean(msgspec.to_builtins(value)))
    return text


def clean(value: object) -> object:
    """The same plain value with no character that the store cannot hold."""
    match value:
        case str():
            return "".join(REPLACEMENT if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in value)
        case dict():
            return {clean(key): clean(member) for key, member in value.items()}
        case list() | tuple():
            return [clean(member) for member in value]
        case _:
            return value


def clean_text(text: str) -> str:
    """One text as ``encode`` would store it: what a key of the store must be called by."""
    return text if "\0" not in text and text.isprintable() else str(clean(text))


def row_of(record: Mapping[str, object]) -> Row:
    """The Row that a record of the columns holds (jsonb as plain values)."""
    return msgspec.convert({name: record[name] for name in COLUMNS}, Row)

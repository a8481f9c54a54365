"""Arrays on their way to PostgreSQL, made at once in its binary form.

psycopg asks a dumper for each element, which for a batch's dozen arrays costs more than all its other encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg.abc import AdaptContext, Buffer, PyFormat
from psycopg.adapt import Dumper
from psycopg.pq import Format

BOOL, BYTEA, INT8, INT4, TEXT, FLOAT8, UUID_, JSONB = 16, 17, 20, 23, 25, 701, 2950, 3802  # of pg_type
ARRAY_OF = {BOOL: 1000, BYTEA: 1001, INT4: 1007, TEXT: 1009, INT8: 1016, FLOAT8: 1022, UUID_: 2951, JSONB: 3807}

_head = struct.Struct(">iIIii")  # dimensions, whether one is null, the elements' type, how many, the first one's number
_length = struct.Struct(">i")
_NULL = _length.pack(-1)
_UUID = _length.pack(16)
_TRUE, _FALSE = _length.pack(1) + b"\1", _length.pack(1) + b"\0"


class Ready(Struct, frozen=True, gc=False):
    """A parameter in PostgreSQL's binary form, and its type."""

    oid: int
    payload: Buffer


class ReadyDumper(Dumper):
    """Hands a Ready on as it is."""

    format = Format.BINARY

    def __init__(self, cls: type, context: AdaptContext | None = None, oid: int = 0) -> None:
        super().__init__(cls, context)
        self.oid = oid

    def get_key(self, obj: Ready, format: PyFormat) -> tuple[type, int]:  # type: ignore[override]
        return (self.cls, obj.oid)

    def upgrade(self, obj: Ready, format: PyFormat) -> ReadyDumper:
        return ReadyDumper(self.cls, oid=obj.oid)

    def dump(self, obj: Ready) -> Buffer:
        return obj.payload


def take_ready(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    """From now on ``conn`` takes Ready parameters."""
    conn.adapters.register_dumper(Ready, ReadyDumper)


def jsonb(text: bytes | bytearray) -> Ready:
    return Ready(JSONB, b"\1" + text)


def uuids(values: Sequence[UUID | None]) -> Ready:
    if None in values:
        parts = (_NULL if value is None else _UUID + value.bytes for value in values)
        return _array(UUID_, len(values), parts, has_null=True)
    body = _UUID.join([b"", *[value.bytes for value in values if value is not None]])
    return _array(UUID_, len(values), (body,))


def bigints(values: Sequence[int]) -> Ready:
    return _array(INT8, len(values), (_packed("iq", 8, values),))


def floats(values: Sequence[float]) -> Ready:
    return _array(FLOAT8, len(values), (_packed("id", 8, values),))


def integers(values: Sequence[int]) -> Ready:
    return _array(INT4, len(values), (_packed("ii", 4, values),))


def booleans(values: Sequence[bool]) -> Ready:
    return _array(BOOL, len(values), [_TRUE if value else _FALSE for value in values])


def texts(values: Sequence[str]) -> Ready:
    return utf8s([value.encode() for value in values])


def utf8s(values: Sequence[bytes]) -> Ready:
    """Texts that are encoded already."""
    return _array(TEXT, len(values), _sized(values))


def byteas(values: Sequence[bytes | None]) -> Ready:
    if None in values:
        parts = (_NULL if value is None else _length.pack(len(value)) + value for value in values)
        return _array(BYTEA, len(values), parts, has_null=True)
    return _array(BYTEA, len(values), _sized([value for value in values if value is not None]))


def jsonbs(values: Sequence[bytes]) -> Ready:
    return _array(JSONB, len(values), _sized([b"\1" + value for value in values]))


def _packed(element: str, size: int, values: Sequence[float]) -> bytes:
    """Each with its length before it."""
    return struct.pack(">" + element * len(values), *chain.from_iterable(zip(repeat(size), values)))


def _sized(values: Sequence[bytes]) -> Iterable[bytes]:
    return chain.from_iterable(zip(map(_length.pack, map(len, values)), values, strict=True))


def _array(element: int, count: int, parts: Iterable[bytes], *, has_null: bool = False) -> Ready:
    """Elements, each with its length before it; copied once."""
    head = _head.pack(1, has_null, element, count, 1) if count else _head.pack(0, 0, element, 0, 0)[:12]
    return Ready(ARRAY_OF[element], b"".join((head, *parts)))

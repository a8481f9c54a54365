"""Promise: same-dialect traffic is spliced, never rebuilt: a splice changes what it names, and no other byte of a value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from shipworthy.model.places import places
from shipworthy.model.splice import splice

TEXT = st.text(max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5), max_leaves=30
)
SPACE = st.sampled_from(["", " ", "\n", "\t", "\r\n  "])


@st.composite
def written(draw: st.DrawFn, values: st.SearchStrategy[Any] = JSON) -> tuple[Any, bytes]:
    """A value, and one of the many ways to write it: white space and escapes as they may come."""
    value = draw(values)
    return value, write(value, draw).encode(errors="surrogatepass")


def write(value: Any, draw: st.DrawFn) -> str:
    gap = draw(SPACE)
    if isinstance(value, dict):
        inner = ",".join(f"{gap}{write_text(k, draw)}{gap}:{write(v, draw)}" for k, v in value.items())
        return f"{gap}{{{inner}{gap}}}{gap}"
    if isinstance(value, list):
        return f"{gap}[{','.join(write(v, draw) for v in value)}{gap}]{gap}"
    return f"{gap}{write_text(value, draw) if isinstance(value, str) else json.dumps(value)}{gap}"


def write_text(text: str, draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return json.dumps(text, ensure_ascii=draw(st.booleans()))
    return '"' + "".join(f"\\u{unit:04X}" for unit in utf16(text)) + '"'


def utf16(text: str) -> Iterator[int]:
    raw = text.encode("utf-16-be", errors="surrogatepass")
    return (int.from_bytes(raw[at : at + 2]) for at in range(0, len(raw), 2))


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths_of(inner, (*path, index))


@settings(max_examples=400, deadline=None)
@given(written(), st.data())
def test_a_place_holds_exactly_its_value(given_: tuple[Any, bytes], data: st.DataObject) -> None:
    value, body = given_
    every = dict(paths_of(value))
    asked = data.draw(st.lists(st.sampled_from(list(every)), max_size=8))
    for chosen in (asked, list(every)):
        found = places(body, chosen)
        assert set(found) == set(chosen)
        for path, (start, end) in found.items():
            assert json.loads(body[start:end]) == every[path]
            assert body[start:end] == body[start:end].strip()


@given(written(st.dictionaries(TEXT, JSON, max_size=4)))
def test_a_place_that_is_not_there_is_an_error(given_: tuple[Any, bytes]) -> None:
    with pytest.raises(KeyError):
        places(given_[1], [("no such key ✗",)])


def test_of_two_equal_keys_the_last_counts_as_it_does_for_readers() -> None:
    body = b'{"a": {"b": 1}, "a": {"b": 2}}'
    start, end = places(body, [("a", "b")])[("a", "b")]
    assert body[start:end] == b"2"


def test_a_long_string_of_escapes_and_brackets_is_skipped_whole() -> None:
    body = b'{"x": "' + b'\\"[{' * 100_000 + b'", "y": [[], {}, "]"], "z": 7}'
    start, end = places(body, [("z",)])[("z",)]
    assert body[start:end] == b"7"


@settings(max_examples=300, deadline=None)
@given(written(st.dictionaries(TEXT, JSON, max_size=6)), st.dictionaries(TEXT, JSON, max_size=4))
def test_a_splice_replaces_what_it_names_and_keeps_every_other_byte(given_: tuple[Any, bytes], new: Any) -> None:
    value, body = given_
    fields = msgspec.json.decode(body, type=dict[str, Raw])
    replace = {key: json.dumps(inner).encode() for key, inner in new.items()}
    spliced = splice(fields, replace)
    assert json.loads(spliced) == {**value, **new}
    assert list(json.loads(spliced)) == list({**value, **new})
    for key, (start, end) in places(spliced, [(key,) for key in {**value, **new}]).items():
        there = places(body, [key])[key] if key[0] not in new else None
        expected = body[slice(*there)] if there else replace[key[0]]
        assert spliced[start:end] == expected

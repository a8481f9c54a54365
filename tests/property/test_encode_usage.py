"""Promise: a client that did not ask for usage gets none, and every other field as the provider sent it."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shipworthy.stages.encode import without_usage

KEYS = st.sampled_from(["id", "usage", "choices", "obfuscation", "x", "Usage", 'a,"usage', "us\u00e4ge"])
WORDS = st.sampled_from(["", "usage", '"usage":null}', 'say "usage', ',"usage":null', "\\", "ünï", "a,b", "},{"])
JSON = st.recursive(
    st.none() | WORDS | st.integers(-9, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
EVENTS = st.lists(st.tuples(KEYS, JSON | st.none() | WORDS), max_size=6)


def written(pairs: list[tuple[str, object]], tight: bool) -> bytes:
    comma, colon = (",", ":") if tight else (", ", ": ")
    members = (json.dumps(k) + colon + json.dumps(v, separators=(comma, colon)) for k, v in pairs)
    return ("{" + comma.join(members) + "}").encode()


@settings(max_examples=1_000, deadline=None)
@example([("usage", {"prompt_tokens": 1}), ("usage", None)], True)
@example([("id", "x"), ("usage", None), ("usage", "words")], True)
@example([("choices", [{"delta": {"content": ',"usage":null}'}}]), ("usage", None), ("obfuscation", "")], True)
@given(EVENTS, st.booleans())
def test_usage_is_taken_off_and_nothing_else(pairs: list[tuple[str, object]], tight: bool) -> None:
    payload = written(pairs, tight)
    wanted = json.loads(payload)
    wanted.pop("usage", None)
    assert json.loads(without_usage(payload)) == wanted


@pytest.mark.parametrize(
    ("payload", "cut"),
    [
        (b'{"id":"c","choices":[],"usage":null}', b'{"id":"c","choices":[]}'),
        (b'{"id":"c","choices":[] ,"usage":null,"obfuscation":"a b"}', b'{"id":"c","choices":[] ,"obfuscation":"a b"}'),
        (b'{"id":"c", "choices":[]}', b'{"id":"c", "choices":[]}'),
    ],
)
def test_the_usual_event_keeps_its_bytes(payload: bytes, cut: bytes) -> None:
    assert without_usage(payload) == cut

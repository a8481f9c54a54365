"""Promise: the quick way to write an exchange's line changes no byte of it, and lets nothing through."""

from __future__ import annotations

import json
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from shipworthy.adapters.telemetry.ended_line import KIND_CHARS_MAX, KINDS_MAX, EndedLine
from shipworthy.adapters.telemetry.levels import Level, level_of
from shipworthy.adapters.telemetry.logs import FIELD_CHARS_MAX, LINE_BYTES_MAX, _bounded
from shipworthy.adapters.telemetry.rendering import json_line
from shipworthy.model.observation import Ended

SECRET = "sk-0123456789abcdef-secretsecret"
TEXTS = st.text(max_size=40) | st.sampled_from(
    [
        "",
        "served",
        "failed",
        "cut",
        "support",
        SECRET,
        f"a {SECRET} b",
        "\x7f\x1b[2J",
        '"}\n{"',
        "🚢" * 30,
        "\ud800",
        "\0",
    ]
)
IDS = st.uuids().map(str) | TEXTS | st.uuids().map(lambda it: str(it).upper())
FIGURES = st.floats(min_value=0, max_value=1e7) | st.floats() | st.integers(0, 10**20) | st.just(-0.0)
COUNTS = st.integers(-5, 10**30)
ENDED = st.builds(
    Ended, IDS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, FIGURES, FIGURES, COUNTS, COUNTS, COUNTS, COUNTS
)  # fmt: skip
LINE = EndedLine('worker "1"')


def slowly(unix_ns: int, ended: Ended) -> bytes:
    fields = _bounded(asdict(ended), FIELD_CHARS_MAX)
    return json_line(unix_ns, level_of(ended), 'worker "1"', "ended", fields)


@settings(max_examples=1_000, deadline=None)
@given(ended=ENDED, unix_ns=st.integers(0, 2**62))
def test_an_ended_line_is_the_one_that_json_line_writes(ended: Ended, unix_ns: int) -> None:
    line = LINE.line(unix_ns, level_of(ended), ended)
    assert line in (b"", slowly(unix_ns, ended))
    assert len(line) <= LINE_BYTES_MAX
    assert SECRET.encode() not in line


def usual(**said: object) -> Ended:
    fields = {
        "exchange_id": str(UUID(int=7)), "tenant": "t", "use_case": "u", "model": "m", "outcome": "served", "code": "",
        "duration_ms": 12.345678, "first_token_ms": 0.0, "input_tokens": 1, "output_tokens": 2, "charged_nano": 3,
        "overrun_nano": 0,
    }  # fmt: skip
    return Ended(**{**fields, **said})  # type: ignore[arg-type]


def test_the_usual_line_is_written_quickly() -> None:
    for ended in (usual(), usual(use_case=f"a {SECRET}"), usual(outcome="failed", tenant="ü🚢")):
        line = LINE.line(1_795_297_327_123_456_789, level_of(ended), ended)
        assert line == slowly(1_795_297_327_123_456_789, ended)
        assert json.loads(line)["exchange_id"] == ended.exchange_id


def test_names_that_a_client_makes_up_fill_no_memory() -> None:
    line = EndedLine("w")
    for n in range(2 * KINDS_MAX):
        assert line.line(0, Level.INFO, usual(use_case=f"made up {n}"))
    assert line._around.cache_info().currsize == KINDS_MAX
    assert line.line(0, Level.INFO, usual(use_case="x" * KIND_CHARS_MAX)) == b""

"""Log lines keep the promises: one JSON object each, bounded, nothing secret, and never in a request's way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import get_args

import pytest

from shipworthy.adapters.telemetry.levels import LEVELS, Level
from shipworthy.adapters.telemetry.line_writer import LineWriter
from shipworthy.adapters.telemetry.logs import LINE_BYTES_MAX, STRANGERS_BURST, JsonLog, event_name
from shipworthy.adapters.telemetry.rendering import pretty_line
from shipworthy.kit.clock import HandClock
from shipworthy.model.observation import (
    AttemptFailed,
    Ended,
    Failed,
    Lifecycle,
    Observation,
    Refused,
    Reloaded,
)

CREDENTIAL = "sk-0123456789abcdef-secretsecretsecret"
ENDED = Ended("0193", "northwind", "support", "small", "served", "", 1850.5, 640.0, 12, 3, 960_000, 0)


class Text:
    """A stream in memory that remembers its lines; ``fails`` makes writing raise."""

    def __init__(self) -> None:
        self.said = ""
        self.fails: OSError | None = None

    def write(self, text: str) -> None:
        if self.fails is not None:
            raise self.fails
        self.said += text

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        raise OSError("no file")

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.said.splitlines()]


def lines_of(*observations: Observation, clock: HandClock | None = None) -> list[dict[str, object]]:
    stream = Text()
    log = JsonLog(stream, "worker 1", clock=clock)
    for observation in observations:
        log(observation)
    log.close()
    return stream.lines()


def filled(kind: type[Observation], text: str) -> Observation:
    values = {"str": text, "int": 1, "float": 1.5, "bool": False}
    return kind(*(values[str(kind.__annotations__[name])] for name in kind.__struct_fields__))


def until(holds: Callable[[], object], within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(holds())


@pytest.mark.parametrize("kind", get_args(Observation))
def test_every_observation_is_one_line_with_all_its_fields_and_no_credential(kind):
    """No observation is without a level, and no text field of any carries a credential out."""
    assert kind in LEVELS
    (line,) = lines_of(filled(kind, f"x {CREDENTIAL} y"))
    assert line["event"] == event_name(kind)
    assert line["process"] == "worker 1"
    names = {f"{line['event']}_{name}" if name == "process" else name for name in kind.__struct_fields__}
    assert set(line) == {"ts", "level", "process", "event"} | names
    assert CREDENTIAL not in json.dumps(line)


def test_a_line_says_when_how_grave_and_what():
    clock = HandClock(unix_s=1_795_297_327)
    (line,) = lines_of(ENDED, clock=clock)
    assert line == {
        "ts": "2026-11-21T21:42:07.000000Z",
        "level": "info",
        "process": "worker 1",
        "event": "ended",
        "exchange_id": "0193",
        "tenant": "northwind",
        "use_case": "support",
        "model": "small",
        "outcome": "served",
        "code": "",
        "duration_ms": 1850.5,
        "first_token_ms": 640.0,
        "input_tokens": 12,
        "output_tokens": 3,
        "charged_nano": 960_000,
        "overrun_nano": 0,
    }


def test_levels_follow_the_content_where_it_decides():
    lines = lines_of(
        Reloaded("d", accepted=True, reason=""),
        Reloaded("d", accepted=False, reason="no"),
        Lifecycle("worker 2", "died", "status -9"),
        Failed("pipeline", "KeyError('x')", "0193", "Traceback…"),
    )
    assert [line["level"] for line in lines] == ["info", "error", "warning", "error"]
    assert lines[2]["process"] == "worker 1"
    assert lines[2]["lifecycle_process"] == "worker 2"
    assert lines[3]["traceback"] == "Traceback…"


def test_a_log_that_wants_warnings_leaves_out_what_is_less():
    stream = Text()
    log = JsonLog(stream, "w", Level.WARNING)
    log(ENDED)
    log(AttemptFailed("0193", "small", "openai", "connect", 0, "refused"))
    log.close()
    assert [line["event"] for line in stream.lines()] == ["attempt_failed"]


@pytest.mark.parametrize(
    "text",
    ['"}\n{"level":"forged"}', "\x1b[2J\x9b31m\x7f\u2028\u202e", "\ud800 half", "ünïcödé 🚢", "\0" * 50],
    ids=["newline", "escapes", "surrogate", "letters", "nul"],
)
def test_no_text_forges_a_line_or_moves_a_cursor(text):
    stream = Text()
    log = JsonLog(stream, "w")
    log(Refused("0193", "identify.malformed", text, "peer"))
    log.close()
    assert stream.said.count("\n") == 1
    assert all(" " <= c <= "~" for c in stream.said[:-1])
    assert json.loads(stream.said)["detail"] == text


@pytest.mark.parametrize("text", ["a" * 1_000_000, "🚢" * 100_000, "\x01" * 100_000, "word " * 50_000])
def test_a_line_keeps_its_bound_and_a_traceback_its_end(text):
    stream = Text()
    log = JsonLog(stream, "w")
    began = time.perf_counter()
    log(Failed(text, text, text, text + " last words"))
    assert time.perf_counter() - began < 1.0
    log.close()
    assert len(stream.said.encode()) <= LINE_BYTES_MAX
    assert stream.lines()[0]["traceback"].endswith("last words")


def test_figures_that_json_does_not_know_are_null():
    (line,) = lines_of(Ended("0193", "n", "s", "m", "served", "", float("nan"), float("inf"), 1, 1, 1, 0))
    assert line["duration_ms"] is None
    assert line["first_token_ms"] is None
    assert line["tenant"] == "n"


def test_refusals_of_strangers_are_bounded_and_what_is_left_out_is_counted():
    """A flood without a credential fills no disk."""
    clock, stream = HandClock(), Text()
    log = JsonLog(stream, "w", clock=clock)
    for _ in range(STRANGERS_BURST + 1_000):
        log(Refused("0193", "identify.bad_signature", "", "peer"))
    log(ENDED)
    clock.pass_s(1)
    for _ in range(100):
        log(Refused("0193", "identify.expired", "", "peer"))
    log.close()
    lines = stream.lines()
    assert sum(line["event"] == "refused" for line in lines) == STRANGERS_BURST + 50
    assert sum(line["event"] == "ended" for line in lines) == 1
    told = [line for line in lines if line["event"] == "log_suppressed"]
    assert sum(int(line["count"]) for line in told) == 1_050
    assert "identify.bad_signature 1000" in " ".join(str(line["kinds"]) for line in told)


def test_what_was_suppressed_is_told_within_seconds_and_not_more_than_once_a_second():
    stream = Text()
    log = JsonLog(stream, "w")
    for _ in range(STRANGERS_BURST + 100):
        log(Refused("0193", "identify.expired", "", "peer"))
    assert until(lambda: "log_suppressed" in stream.said, 5)
    assert len([line for line in stream.lines() if line["event"] == "log_suppressed"]) == 1
    log.close()


def test_a_stalled_reader_costs_lines_never_time():
    """A full pipe doesn't stop a request: the queue is bounded, the rest dropped, counted, and told when it reads again."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        log = JsonLog(stream, "w")
        began = time.perf_counter()
        for _ in range(20_000):
            log(Failed("pipeline", "r" * 300, "0193", ""))
        assert time.perf_counter() - began < 10.0
        assert log.dropped > 0
        dropped = log.dropped
        read = b""
        while read.count(b"\n") < 20_000 - dropped + 1:
            read += os.read(reader, 1 << 20)
        lines = [json.loads(line) for line in read.splitlines()]
        assert sum(line["event"] == "failed" for line in lines) + dropped == 20_000
        assert sum(line["count"] for line in lines if line["event"] == "log_dropped") == dropped
        log.close()
    os.close(reader)


def test_a_stalled_reader_does_not_hold_up_the_end():
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        log = JsonLog(stream, "w")
        for _ in range(1_000):
            log(Failed("pipeline", "r" * 300, "0193", ""))
        began = time.perf_counter()
        log.close()
        assert time.perf_counter() - began < 3.0
        os.close(reader)  # ends the writer's thread
        log._writer._thread.join(5)


def test_a_reader_that_is_gone_a_full_disk_and_a_closed_stream_cost_lines_only():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone, open("/dev/full", "w") as full:
        closed = Text()
        closed.fails = OSError("closed")
        for stream in (gone, full, closed, None):
            log = JsonLog(stream, "w")
            for _ in range(10):
                log(ENDED)
            log.close()
            assert log.dropped == 10, stream
            log(ENDED)
            assert log.dropped == 11


def test_a_stream_that_works_again_hears_what_was_lost():
    stream = Text()
    stream.fails = OSError("no space left")
    log = JsonLog(stream, "w")
    log(ENDED)
    assert until(lambda: log.dropped == 1)
    stream.fails = None
    log(ENDED)
    assert until(lambda: "log_dropped" in stream.said)
    assert {line["event"]: line.get("count") for line in stream.lines()} == {"ended": None, "log_dropped": 1}
    log.close()


def test_a_line_that_a_full_disk_cut_is_ended_before_the_next(tmp_path, monkeypatch):
    """Half a line never swallows the next one."""
    room = [10]
    real = os.write

    def cramped(fd: int, text: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        taken = text[: room[0]]
        room[0] -= len(taken)
        return real(fd, taken)

    path = tmp_path / "log"
    with open(path, "w") as stream:
        writer = LineWriter(stream)
        monkeypatch.setattr("shipworthy.adapters.telemetry.line_writer.os.write", cramped)
        writer.put(b'{"first":"line"}\n')
        assert until(lambda: writer.dropped == 1)
        room[0] = 1_000
        writer.put(b'{"second":"line"}\n')
        writer.close()
    assert path.read_bytes().splitlines() == [b'{"first":"', b'{"second":"line"}']


def test_a_line_that_cannot_be_made_costs_itself_only(tmp_path):
    def broken() -> bytes:
        raise ValueError("no line")

    with open(tmp_path / "log", "w") as stream:
        writer = LineWriter(stream)
        for line in (broken, b"first\n", lambda: b"second\n"):
            writer.put(line)
        writer.close()
    assert (tmp_path / "log").read_bytes() == b"first\nsecond\n"
    assert writer.dropped == 1


def test_a_stream_that_somebody_made_non_blocking_still_gets_every_line():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(writer, "w") as stream:
        log = JsonLog(stream, "w")
        for _ in range(1_000):
            log(Failed("pipeline", "r" * 200, "0193", ""))
        read = b""
        while read.count(b"\n") < 1_000:
            read += os.read(reader, 65_536)
        assert log.dropped == 0
        log.close()
    os.close(reader)


def test_a_person_at_a_terminal_reads_short_lines_without_escapes():
    line = pretty_line(
        1_795_297_327_123_456_789,
        Level.ERROR,
        "worker 1",
        "failed",
        {"where": "a\x1b[2J", "n": 0, "traceback": "one\ntwo\x07"},
    )
    assert line == b"21:42:07.123 error   worker 1    failed           where=a\\x1b[2J\n    one\n    two\\x07\n"


LIBRARIES = """
import asyncio, logging, sys, threading, warnings
from shipworthy.adapters.telemetry.logs import capture_stdlib, console_log
from shipworthy.model.observation import Swept
log = console_log("worker 1")
capture_stdlib("worker 1")
log(Swept(1, 2))
logging.getLogger("uvicorn.error").warning("Invalid HTTP request with %s", "Bearer abcdefghijklmnop")
logging.getLogger("aiohttp").info("not this")
logging.getLogger("psycopg").error("%d arguments", "wrong")
try:
    {}["sk-0123456789abcdef-secret"]
except KeyError:
    logging.getLogger("asyncio").exception("task failed")
warnings.warn("careful")
thread = threading.Thread(target=lambda: 1 / 0, name="counter"); thread.start(); thread.join()
class Broken:
    def __del__(self): raise ValueError("finalizer")
Broken()
raise SystemError("password=hunter2 and that was that")
"""


def test_libraries_warnings_and_uncaught_exceptions_are_lines_too():
    """No sink is unstructured: everything on stderr is JSON, and redacted."""
    done = subprocess.run([sys.executable, "-c", LIBRARIES], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["event"], line.get("logger", line.get("where"))) for line in lines] == [
        ("swept", None),
        ("library", "uvicorn.error"),
        ("library", "psycopg"),
        ("library", "asyncio"),
        ("library", "py.warnings"),
        ("failed", "thread counter"),
        ("failed", lines[6]["where"]),
        ("failed", "process"),
    ]
    assert {line["process"] for line in lines} == {"worker 1"}
    assert lines[1]["message"] == "Invalid HTTP request with [redacted]"
    assert "don't fit" in lines[2]["message"]
    assert "ZeroDivisionError" in lines[5]["traceback"]
    assert lines[6]["where"].startswith("finalizer")
    for secret in ("abcdefghijklmnop", "0123456789abcdef", "hunter2"):
        assert secret not in done.stderr


def test_a_library_that_floods_is_bounded():
    said = """
import logging
from shipworthy.adapters.telemetry.logs import capture_stdlib
capture_stdlib("w")
for _ in range(5000): logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
"""
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, timeout=60, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    written = sum(line["event"] == "library" for line in lines)
    assert STRANGERS_BURST <= written < STRANGERS_BURST + 300
    assert sum(line["count"] for line in lines if line["event"] == "log_suppressed") == 5_000 - written

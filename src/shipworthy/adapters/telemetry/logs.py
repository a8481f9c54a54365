"""Observations as log lines: one JSON object each, redacted, bounded, written by a thread; and libraries' logs with them.

Lines that strangers can cause without a credential (``Refused``, and what libraries say of broken requests) are bounded by
token buckets, one for each; how many were left out is said once a second.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from functools import partial

from msgspec.structs import asdict

from shipworthy.adapters.telemetry.bucket import Bucket
from shipworthy.adapters.telemetry.ended_line import EndedLine
from shipworthy.adapters.telemetry.levels import Level, level_of
from shipworthy.adapters.telemetry.line_writer import LineWriter, Stream
from shipworthy.adapters.telemetry.redaction import excerpt
from shipworthy.adapters.telemetry.rendering import Render, Value, json_line, pretty_line
from shipworthy.model.observation import Ended, Observation, Refused
from shipworthy.model.op import Clock, SystemClock

LINE_BYTES_MAX = 16_384
FIELD_CHARS_MAX = 2_000
TRACEBACK_TIMES = 3
"""A traceback may be so many times as long, and it is its end that is kept."""
STRANGERS_PER_S = 50.0
STRANGERS_BURST = 200
KINDS_SUPPRESSED_MAX = 200


class JsonLog:
    """A sink of observations. Never raises, never waits for the stream; ``dropped`` counts the lines that it lost."""

    def __init__(
        self,
        stream: Stream | None,
        process: str,
        level: Level = Level.INFO,
        *,
        render: Render = json_line,
        clock: Clock | None = None,
    ) -> None:
        self._process = process
        self._level = level
        self._render = render
        self._ended = EndedLine(process) if render is json_line else None
        self._clock = clock or SystemClock()
        self._strangers = Bucket(STRANGERS_PER_S, STRANGERS_BURST, self._clock)
        self._libraries = Bucket(STRANGERS_PER_S, STRANGERS_BURST, self._clock)
        self._suppressed: Counter[str] = Counter()
        self._suppressing = threading.RLock()
        self._told_dropped = 0
        self._writer = LineWriter(stream, self._notices)

    @property
    def dropped(self) -> int:
        return self._writer.dropped

    def __call__(self, observation: Observation) -> None:
        level = level_of(observation)
        if level < self._level:
            return
        if isinstance(observation, Ended):
            self._writer.put(partial(self._end, self._clock.unix_ns(), level, observation))
            return
        if isinstance(observation, Refused) and not self._may(self._strangers, observation.code):
            return
        self.say(level, event_name(type(observation)), asdict(observation))

    def say(self, level: Level, event: str, fields: Mapping[str, Value]) -> None:
        """One line."""
        self._writer.put(self._line(self._clock.unix_ns(), level, event, fields), urgent=level >= Level.ERROR)

    def library(self, record: logging.LogRecord) -> None:
        """What a library logged, as one of our lines."""
        if not self._may(self._libraries, record.name):
            return
        fields: dict[str, Value] = {"logger": record.name, "message": _message(record)}
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        self.say(Level.ERROR if record.levelno >= logging.ERROR else Level.WARNING, "library", fields)

    def close(self) -> None:
        """Writes what waits, for at most a second."""
        self._writer.close()

    def _end(self, unix_ns: int, level: Level, ended: Ended) -> bytes:
        """The line of an exchange; made by the writer's thread."""
        line = self._ended.line(unix_ns, level, ended) if self._ended is not None else b""
        return line or self._line(unix_ns, level, event_name(Ended), asdict(ended))

    def _line(self, unix_ns: int, level: Level, event: str, fields: Mapping[str, Value]) -> bytes:
        """Texts are redacted, then cut so that the whole line keeps LINE_BYTES_MAX."""
        chars_max = FIELD_CHARS_MAX
        line = self._render(unix_ns, level, self._process, event, _bounded(fields, chars_max))
        while len(line) > LINE_BYTES_MAX and chars_max > 1:
            chars_max //= 2
            line = self._render(unix_ns, level, self._process, event, _bounded(fields, chars_max))
        return line

    def _may(self, bucket: Bucket, kind: str) -> bool:
        with self._suppressing:
            if bucket.take():
                return True
            known = kind in self._suppressed or len(self._suppressed) < KINDS_SUPPRESSED_MAX
            self._suppressed[kind if known else "other"] += 1
            return False

    def _notices(self) -> bytes:
        """Lines about lines: asked for once a second, by the writer's thread."""
        with self._suppressing:
            suppressed, self._suppressed = self._suppressed, Counter()
        said = b""
        now_ns = self._clock.unix_ns()
        if suppressed:
            fields: dict[str, Value] = {"count": suppressed.total()}
            fields["kinds"] = excerpt(
                ", ".join(f"{kind} {n}" for kind, n in suppressed.most_common(20)), FIELD_CHARS_MAX
            )
            said += self._render(now_ns, Level.WARNING, self._process, "log_suppressed", fields)
        if (lost := self.dropped - self._told_dropped) > 0:
            self._told_dropped += lost
            said += self._render(now_ns, Level.WARNING, self._process, "log_dropped", {"count": lost})
        return said


@functools.cache
def event_name(kind: type[Observation]) -> str:
    """The class's name in snake case."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in kind.__name__).lstrip("_")


def _bounded(fields: Mapping[str, Value], chars_max: int) -> dict[str, Value]:
    return {
        name: excerpt(value, chars_max * TRACEBACK_TIMES, tail=True)
        if name == "traceback" and isinstance(value, str)
        else excerpt(value, chars_max)
        if isinstance(value, str)
        else value
        for name, value in fields.items()
    }


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as broken:  # noqa: BLE001 - a library's own format string may not fit its arguments
        return f"{record.msg!r} (its arguments don't fit: {type(broken).__name__})"


@functools.cache
def _console(process: str) -> JsonLog:
    stream = sys.stderr
    pretty = stream is not None and not stream.closed and stream.isatty()
    return JsonLog(stream, process, render=pretty_line if pretty else json_line)


def console_log(process: str) -> JsonLog:
    """The default sink: stderr, as JSON lines, or as short columns where a person sits at it. One a process."""
    return _console(process)


class _ToLog(logging.Handler):
    def __init__(self, log: JsonLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def handle(self, record: logging.LogRecord) -> bool:
        self._log.library(record)  # without the handler's lock: nothing here waits
        return True


def capture_stdlib(process: str, log: JsonLog | None = None) -> None:
    """From here on everything that libraries, warnings and the interpreter say at WARNING or above is a line of ``log``.

    ``log`` None = the process's console log. Uncaught exceptions of threads and finalizers become lines too.
    """
    into = log or _console(process)
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers[:] = [_ToLog(into)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, reason, trace: _uncaught(into, "process", reason)
    threading.excepthook = lambda what: _uncaught(into, f"thread {what.thread and what.thread.name}", what.exc_value)
    sys.unraisablehook = lambda what: _uncaught(into, f"finalizer {what.err_msg or ''}", what.exc_value)


def _uncaught(log: JsonLog, where: str, reason: BaseException | None) -> None:
    fields: dict[str, Value] = {"where": where, "reason": repr(reason), "exchange_id": ""}
    if isinstance(reason, KeyboardInterrupt):
        return
    if reason is not None:
        fields["traceback"] = logging.Formatter().formatException((type(reason), reason, reason.__traceback__))
    log.say(Level.ERROR, "failed", fields)

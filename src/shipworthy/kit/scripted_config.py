"""What a manifest says about a scripted provider: its answers, its pace, and its faults by schedule.

providers:
  rehearsal:
    kind: scripted
    pace: {first_token_ms: 200, inter_token_ms: 20}
    answers: [{contains: "opening hours", say: "We open at nine."}]
    script:                                  # the first line that covers a request counts
      - {after: 2, fault: "429", times: 3, retry_after_s: 2}    # requests 3, 4 and 5
      - {after: 9, fault: half-stream, times: 0}                # from request 10 on, for ever
    allow_markers: true                      # a message may say [[fault:slow delay_ms=500]]
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from shipworthy.manifest.specs import Config

Fault = Literal[
    "400", "401", "404", "429", "500", "503", "connect", "reset", "redirect",
    "slow", "late-head", "drip", "hang", "hang-after-head", "hang-midway",
    "half-stream", "half-stream-fin", "no-done", "no-end", "garbled", "broken-json", "broken-sse", "empty",
    "error-200", "error-midway", "wrong-content-type", "json-not-stream", "huge", "gzip-bomb",
    "usage-x10", "usage-zero", "usage-negative", "usage-missing",
]  # fmt: skip
FAULTS: tuple[str, ...] = get_args(Fault)

ANSWERS_MAX = 1_000
LINES_MAX = 1_000
DELAY_MS_MAX = 600_000
SIZE_BYTES_MAX = 1 << 30


class Line(Config):
    """A fault, and the requests that meet it: ``times`` of them (0 = for ever) after the first ``after``."""

    fault: Fault
    after: int = Field(default=0, ge=0)
    times: int = Field(default=1, ge=0)
    retry_after_s: float | None = Field(default=None, ge=0)  # 429, 503
    retry_after_date: bool = False  # say it as an HTTP date
    delay_ms: int = Field(
        default=1_000, ge=0, le=DELAY_MS_MAX
    )  # slow (per token), late-head, drip (per byte: a hundredth)
    size_bytes: int = Field(default=128 << 20, ge=1, le=SIZE_BYTES_MAX)  # huge, gzip-bomb

    def covers(self, number: int) -> bool:
        """Whether the request ``number``, counted from 1, meets this fault."""
        return number > self.after and (self.times == 0 or number <= self.after + self.times)


class Pace(Config):
    """How fast the script speaks."""

    first_token_ms: int = Field(default=0, ge=0, le=DELAY_MS_MAX)
    inter_token_ms: float = Field(default=0, ge=0, le=DELAY_MS_MAX)


class Saying(Config):
    """When the last message contains ``contains``, the answer is ``say``."""

    contains: str = Field(max_length=10_000)
    say: str = Field(max_length=1_000_000)


class ScriptedConfig(Config):
    """The settings of ``kind: scripted``."""

    answers: tuple[Saying, ...] = Field(default=(), max_length=ANSWERS_MAX)
    pace: Pace = Pace()
    script: tuple[Line, ...] = Field(default=(), max_length=LINES_MAX)
    allow_markers: bool = False
    embedding_dimensions: int = Field(default=8, ge=1, le=4_096)

"""The operation context: what every stage and port gets first. It carries no privileges."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from enum import StrEnum
from itertools import compress, repeat
from operator import sub
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from shipworthy.model.observation import Observation


class Kind(StrEnum):
    """What sort of work this is."""

    REQUEST = "request"
    EVAL = "eval"
    BATCH = "batch"
    SHADOW = "shadow"
    REPLAY = "replay"
    JOB = "job"
    CLI = "cli"
    DRILL = "drill"


class Step(Struct, frozen=True, gc=False):
    """One stage of one request: offsets from the exchange's begin."""

    stage: str
    start_ns: int
    duration_ns: int
    tokens: int = 0
    cost_nano: int = 0
    refused: str = ""  # the code with which the stage refused


class Clock(Protocol):
    """Wall time may jump; only ``monotonic_ns`` measures."""

    def unix_ns(self) -> int: ...
    def monotonic_ns(self) -> int: ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    unix_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)


Observe = Callable[[Observation], None]


class Op:
    """id, kind, deadline (monotonic ns, 0 = none), clock, observe; and when which stage began.

    ``left`` is set when the client has gone: nothing new is begun for it, what runs is drained for a bounded time.
    """

    __slots__ = (
        "_marks",
        "arrived_unix_ns",
        "began_ns",
        "clock",
        "deadline_ns",
        "id",
        "id_text",
        "kind",
        "left",
        "observe",
        "traceparent",
    )

    def __init__(
        self, kind: Kind, clock: Clock, observe: Observe, *, deadline_ns: int = 0, traceparent: str = ""
    ) -> None:
        self.kind = kind
        self.clock = clock
        self.observe = observe
        self.deadline_ns = deadline_ns
        self.traceparent = traceparent
        self.arrived_unix_ns = clock.unix_ns()
        self.began_ns = clock.monotonic_ns()
        self.id = uuid7(self.arrived_unix_ns)
        self.id_text = str(self.id)
        self.left = False
        self._marks: list[tuple[str, int, str]] = []  # what begins, if anything; when; with which code the last refused

    @classmethod
    def for_request(cls, clock: Clock, observe: Observe, traceparent: str = "") -> Op:
        return cls(Kind.REQUEST, clock, observe, traceparent=traceparent)

    @classmethod
    def for_cli(cls, observe: Observe) -> Op:
        return cls(Kind.CLI, SystemClock(), observe)

    @classmethod
    def for_job(cls, clock: Clock, observe: Observe) -> Op:
        return cls(Kind.JOB, clock, observe)

    def elapsed_ns(self) -> int:
        return self.clock.monotonic_ns() - self.began_ns

    def begins(self, stage: str) -> None:
        """``stage`` begins, and what ran before it is over: one look at the clock for both."""
        self._marks.append((stage, self.clock.monotonic_ns(), ""))

    def ends(self, refused: str = "") -> None:
        """What ran is over; with which code it refused."""
        self._marks.append(("", self.clock.monotonic_ns(), refused))

    def steps(self) -> list[Step]:
        """Every stage that is over. No loop of ours goes through them: every request has ten."""
        if not self._marks:
            return []
        stages, at_ns, refused = zip(*self._marks, strict=True)
        starts_ns, durations_ns = map(sub, at_ns, repeat(self.began_ns)), map(sub, at_ns[1:], at_ns)
        made = map(Step, stages, starts_ns, durations_ns, repeat(0), repeat(0), refused[1:])
        return list(compress(made, stages))


def uuid7(unix_ns: int) -> UUID:
    """A UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds, then 74 random bits. An id, no secret."""
    return UUID(int=(unix_ns // 1_000_000 & _48_BITS) << 80 | 7 << 76 | _draw(12) << 64 | 2 << 62 | _draw(62))


_48_BITS = (1 << 48) - 1
_draw = random.Random(os.urandom(32)).getrandbits  # noqa: S311 - seeded by the system, anew in a forked process
os.register_at_fork(after_in_child=lambda: _draw.__self__.seed(os.urandom(32)))  # type: ignore[attr-defined]

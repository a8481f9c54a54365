"""What the scripted provider received, did and billed: the other side of a reconciliation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from enum import StrEnum
from time import monotonic_ns

ENTRIES_MAX = 10_000
KEPT_BYTES_MAX = 64 << 20


class Ended(StrEnum):
    """How an answer ended, as the provider saw it."""

    OPEN = "open"
    SAID = "said"  # everything was written
    FAULT = "fault"  # the script broke it off
    CLIENT_LEFT = "client_left"


class Entry:
    """One request. ``billed_`` is what an honest provider would charge: input once it answers, output as it is said."""

    __slots__ = (
        "began_ns", "billed_input", "billed_output", "body", "ended", "ended_ns", "fault", "headers", "number", "path",
        "reported", "status",
    )  # fmt: skip

    def __init__(self, number: int, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self.number = number  # from 1
        self.path = path
        self.headers = headers
        self.body = body
        self.began_ns = monotonic_ns()
        self.fault = ""
        self.status = 0  # 0 = no head was sent
        self.reported: object = None  # the usage that the answer claims
        self.billed_input = 0
        self.billed_output = 0
        self.ended = Ended.OPEN
        self.ended_ns = 0

    def end(self, how: Ended) -> None:
        """The first end counts."""
        if self.ended is Ended.OPEN:
            self.ended = how
            self.ended_ns = monotonic_ns()


class Log:
    """The last requests, oldest first, at most 10,000 with 64 MiB of bodies; ``received`` counts all."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._kept_bytes = 0
        self.received = 0

    def begin(self, path: str, headers: Mapping[str, str], body: bytes) -> Entry:
        self.received += 1
        entry = Entry(self.received, path, headers, body)
        self._entries.append(entry)
        self._kept_bytes += len(body)
        while len(self._entries) > ENTRIES_MAX or (self._kept_bytes > KEPT_BYTES_MAX and len(self._entries) > 1):
            self._kept_bytes -= len(self._entries.popleft().body)
        return entry

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    @property
    def billed(self) -> tuple[int, int]:
        """Input and output tokens over all kept entries."""
        entries = tuple(self._entries)
        return sum(entry.billed_input for entry in entries), sum(entry.billed_output for entry in entries)

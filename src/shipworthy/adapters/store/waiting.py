"""The line in front of the recorder's writer: what is not committed yet, bounded in entries and in bytes.

Three threads meet here: the event loop puts in, the writer takes batches, and while the writer waits for the store another
walks along the next batch and makes sheets of what stands there. It never changes the line, so that whatever it does or
fails to do, what is written and in which order is the writer's affair alone.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence

from msgspec import Struct, structs

from shipworthy.adapters.store.sheets import Sheet
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.exchange import Bodies
from shipworthy.ports import Entry, Intent

ENTRY_BYTES = 8_192
"""Of a row without its bodies in memory, about. An intent keeps its request: never more bytes than its ceiling of tokens."""


class RecorderBounds(Struct, frozen=True):
    """Every bound of the record's way into the store."""

    record_s: float = 10.0  # how long `record` waits for its commit
    intend_s: float = 3.0  # how long `intended` does: nothing was sent yet, so that a refusal costs nothing
    queue_entries_max: int = 20_000
    queue_bytes_max: int = 128 * 1024 * 1024
    batch_entries_max: int = 256
    batch_bytes_max: int = 8 * 1024 * 1024
    gather_ms: float = 10.0  # how long enqueued entries gather; one that is waited for is not kept waiting
    retry_ms_min: float = 50.0
    retry_ms_max: float = 1_000.0


class Item:
    """An entry or an intent in the line. ``waiter`` is None when nobody waits for its commit."""

    __slots__ = ("late", "sheet", "size", "waiter", "what")

    def __init__(self, what: Entry | Intent, waiter: asyncio.Future[None] | None) -> None:
        self.what = what
        self.waiter = waiter
        self.late = False
        self.sheet: Sheet | None = None  # made ahead
        self.size = ENTRY_BYTES + (
            _bytes_of(what.bodies) if isinstance(what, Entry) else what.hold.estimate.input_tokens
        )

    def entry(self) -> Entry | None:
        """The entry as it is written; None of an intent."""
        entry = self.what
        if not isinstance(entry, Entry):
            return None
        if not self.late:
            return entry
        return structs.replace(entry, row=structs.replace(entry.row, flags=(*entry.row.flags, "record_late")))

    def intent(self) -> Intent | None:
        """The intent, if it is one that still has to be written."""
        return self.what if isinstance(self.what, Intent) and not self.what.void else None


def _bytes_of(bodies: Bodies | None) -> int:
    return len(bodies.request) + len(bodies.reply) if bodies is not None else 0


class Waiting:
    """Puts are refused when it is full or closed; ``take`` blocks, and so does ``next_ahead``."""

    def __init__(self, bounds: RecorderBounds) -> None:
        self._bounds = bounds
        self._queue: deque[Item] = deque()
        self._bytes = 0  # of everything that is not committed yet
        self._awaited = 0  # entries in the queue that somebody waits for
        self._writing = 0
        self._ahead = 0  # so many at the queue's head were given to `next_ahead`
        self._ahead_bytes = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # for the writer
        self._writable = threading.Condition(self._lock)  # for whoever makes sheets
        self._closing_at: float | None = None  # monotonic: until then the queue is drained
        self._over = False  # nothing is taken any more

    def __len__(self) -> int:
        return len(self._queue) + self._writing

    def put(self, item: Item, trouble: str) -> None:
        """Raises StoreUnavailable, which names ``trouble`` when the line is full."""
        what = item.what
        with self._lock:
            if self._closing_at is not None:
                raise StoreUnavailable("store.closed: the recorder is draining and takes nothing new")
            full = len(self) >= self._bounds.queue_entries_max
            if full or (self._bytes + item.size > self._bounds.queue_bytes_max and len(self)):
                raise StoreUnavailable(f"store.queue_full: {len(self)} entries wait to be recorded; {trouble}")
            if isinstance(what, Entry) and what.hold is not None and isinstance(what.hold.intent, Intent):
                what.hold.intent.revoke()
            self._queue.append(item)
            self._bytes += item.size
            self._awaited += item.waiter is not None
            # what only gathers need not wake the writer: it looks again by itself, within gather_ms
            if item.waiter is not None or len(self._queue) in (1, self._bounds.batch_entries_max):
                self._changed.notify()
            if self._has_next():
                self._writable.notify()

    def take(self) -> list[Item]:
        """The next batch; empty when the line is closed and drained."""
        with self._lock:
            while not self._queue and self._closing_at is None:
                self._changed.wait()
            self._gather()
            batch: list[Item] = []
            size = 0
            while self._queue and len(batch) < self._bounds.batch_entries_max:
                if batch and size + self._queue[0].size > self._bounds.batch_bytes_max:
                    break
                batch.append(self._queue.popleft())
                size += batch[-1].size
                self._awaited -= batch[-1].waiter is not None
            self._ahead = self._ahead_bytes = 0  # a batch reaches at least as far as anybody went ahead
            self._writing = len(batch)
            return batch

    def written(self, batch: Sequence[Item]) -> None:
        """``batch``, which was taken last, is committed or was answered."""
        with self._lock:
            self._bytes -= sum(item.size for item in batch)
            self._writing = 0

    def next_ahead(self) -> Item | None:
        """The next item of the batch to come, each once, and only while another is being written; None when it is over."""
        with self._lock:
            while not self._over and not self._has_next():
                self._writable.wait()
            if self._over:
                return None
            item = self._queue[self._ahead]
            self._ahead += 1
            self._ahead_bytes += item.size
            return item

    def _has_next(self) -> bool:
        if not self._writing or self._ahead >= min(len(self._queue), self._bounds.batch_entries_max):
            return False
        size = self._ahead_bytes + self._queue[self._ahead].size
        return not self._ahead or size <= self._bounds.batch_bytes_max

    def close(self, within_s: float) -> None:
        """Takes nothing new; what is there may still be written for ``within_s``."""
        with self._lock:
            self._closing_at = time.monotonic() + within_s
            self._changed.notify()

    def end(self) -> None:
        """The writer has gone."""
        with self._lock:
            self._over = True
            self._writable.notify()

    def pause(self, seconds: float) -> bool:
        """Waits before the next try; False when the drain time is over."""
        until = time.monotonic() + seconds
        with self._lock:
            while True:
                now = time.monotonic()
                if self._closing_at is not None and now >= self._closing_at:
                    return False
                if now >= until:
                    return True
                self._changed.wait(until - now)

    def _gather(self) -> None:
        """Lets enqueued entries gather, unless one is waited for or there are enough."""
        until = time.monotonic() + self._bounds.gather_ms / 1e3
        while not self._awaited and len(self._queue) < self._bounds.batch_entries_max and self._closing_at is None:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            self._changed.wait(left_s)

"""The recorder: what ended is sealed, grouped and committed by one writer a worker; so is what is about to begin on a lease.

``record`` and ``intended`` return when what they were given is committed; ``enqueue`` and ``intend`` return at once. All
share one bounded queue and one writer thread, which takes what has gathered while the last batch was under way: under load
batches grow by themselves. The thread keeps encoding, sealing and the store's answers off the event loop. An intent whose
exchange ends before it was written is left out.

What a caller was told is recorded stays recorded, whatever is killed: the answer comes after the commit. What is said twice
because an answer was lost counts once (migration 0004). An entry whose caller gave up waiting stays in the queue and is
still written, with the flag ``record_late``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

import psycopg
from msgspec import Struct, structs

from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.trouble import first_line, passing, unavailable
from shipworthy.adapters.store.vault import Vault
from shipworthy.model.errors import ShipworthyError, StoreUnavailable
from shipworthy.model.observation import Failed, StoreDegraded
from shipworthy.model.op import Observe
from shipworthy.ports import Entry, Intent

ENTRY_BYTES = 8_192
"""Of a row without its bodies in memory, about. An intent keeps its request: never more bytes than its ceiling of tokens."""

IDLE_LOOKS = 40
"""After so many looks in vain the writer sleeps until it is woken."""


class RecorderBounds(Struct, frozen=True):
    """Every bound of the record's way into the store."""

    record_s: float = 10.0  # how long `record` waits for its commit
    intend_s: float = 3.0  # how long `intended` does: nothing was sent yet, so that a refusal costs nothing
    queue_entries_max: int = 20_000
    queue_bytes_max: int = 128 * 1024 * 1024
    batch_entries_max: int = 256
    batch_bytes_max: int = 8 * 1024 * 1024
    gather_ms: float = 25.0  # how long enqueued entries gather; one that is waited for is not kept waiting
    retry_ms_min: float = 50.0
    retry_ms_max: float = 1_000.0


class Item:
    """An entry or an intent in the queue. ``waiter`` is None when nobody waits for its commit."""

    __slots__ = ("late", "size", "waiter", "what")

    def __init__(self, what: Entry | Intent, waiter: asyncio.Future[None] | None) -> None:
        self.what = what
        self.waiter = waiter
        self.late = False
        self.size = ENTRY_BYTES + (what.body_bytes if isinstance(what, Entry) else what.hold.estimate.input_tokens)

    @property
    def moot(self) -> bool:
        """Whether nothing is to be written, and nobody waits for it."""
        return self.waiter is None and isinstance(self.what, Intent) and self.what.void

    def entry(self) -> Entry | None:
        """The entry as it is written; None of an intent."""
        entry = self.what
        if not isinstance(entry, Entry):
            return None
        if not self.late:
            return entry
        row, bodies = entry.made()
        return Entry(structs.replace(row, flags=(*row.flags, "record_late")), bodies, entry.hold, entry.charge)

    def intent(self) -> Intent | None:
        """The intent, if it is one that still has to be written."""
        return self.what if isinstance(self.what, Intent) and not self.what.void else None


class PostgresRecorder:
    """ports.Recorder, for the callers of one event loop. ``close`` drains it."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        observe: Observe,
        bounds: RecorderBounds | None = None,
        now: Callable[[], datetime] | None = None,
        worker: str = "",
        settled: Callable[[Entry], None] = lambda _: None,
    ) -> None:
        self._bounds = bounds or RecorderBounds()
        self._observe = observe
        self._settled = settled
        self._writer = BatchWriter(store.conninfo(StoreRole.RECORDER), vault, now, worker)
        self._queue: deque[Item] = deque()
        self._bytes = 0  # of everything that is not committed yet
        self._awaited = 0  # entries in the queue that somebody waits for
        self._writing = 0
        self._asleep = False  # the writer, until somebody wakes it
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closing_at: float | None = None  # monotonic: until then the queue is drained
        self._trouble = ""  # why the last batch failed; "" when it did not
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    async def record(self, entry: Entry) -> None:
        await self._committed(entry, self._bounds.record_s)

    def enqueue(self, entry: Entry) -> None:
        if self._trouble:
            entry.made()  # it may wait for long, and what it is made of takes more room
        self._put(entry, None)
        self._settled(entry)

    async def intended(self, intent: Intent) -> None:
        await self._committed(intent, self._bounds.intend_s)

    def intend(self, intent: Intent) -> None:
        self._put(intent, None)

    async def _committed(self, what: Entry | Intent, within_s: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        item = self._put(what, waiter)
        try:
            async with asyncio.timeout(within_s):
                await waiter
        except TimeoutError:
            item.late = True
            why = self._trouble or "store.slow: the store has not committed the record in time"
            raise StoreUnavailable(f"{why} (waited {within_s:g} s)") from None

    @property
    def waiting(self) -> int:
        """Entries that are not committed yet."""
        return len(self._queue) + self._writing

    async def close(self, within_s: float = 10.0) -> int:
        """Drains the queue for at most ``within_s``; returns how many entries were left behind: the sweeper settles those
        that held money, and each is observed."""
        with self._changed:
            self._closing_at = time.monotonic() + within_s
            self._changed.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, within_s + 2.0)
        left = self.waiting
        if left:
            self._observe(StoreDegraded("recorder.close", self._trouble or "the drain time is over", left))
        return left

    # ---------------------------------------------------------------------------------------- the queue

    def _put(self, what: Entry | Intent, waiter: asyncio.Future[None] | None) -> Item:
        item = Item(what, waiter)
        with self._lock:
            if self._closing_at is not None:
                raise StoreUnavailable("store.closed: the recorder is draining and takes nothing new")
            if self._thread.ident is None:
                self._thread.start()
            full = self.waiting >= self._bounds.queue_entries_max
            if full or (self._bytes + item.size > self._bounds.queue_bytes_max and self.waiting):
                raise StoreUnavailable(f"store.queue_full: {self.waiting} entries wait to be recorded; {self._trouble}")
            if isinstance(what, Entry) and what.hold is not None and isinstance(what.hold.intent, Intent):
                what.hold.intent.revoke()
            self._queue.append(item)
            self._bytes += item.size
            self._awaited += waiter is not None
            if waiter is not None or self._asleep or len(self._queue) == self._bounds.batch_entries_max:
                self._changed.notify()
        return item

    def _take(self) -> list[Item]:
        """The next batch; empty when the recorder is closed and drained."""
        with self._changed:
            while True:
                self._rest()
                batch = self._gathered()
                if batch or self._closing_at is not None:
                    self._writing = len(batch)
                    return batch

    def _gathered(self) -> list[Item]:
        batch: list[Item] = []
        size = 0
        while self._queue and len(batch) < self._bounds.batch_entries_max:
            if self._queue[0].moot:  # of a large request it would take a megabyte's place in the batch
                self._bytes -= self._queue.popleft().size
                continue
            if batch and size + self._queue[0].size > self._bounds.batch_bytes_max:
                break
            batch.append(self._queue.popleft())
            size += batch[-1].size
            self._awaited -= batch[-1].waiter is not None
        return batch

    def _rest(self) -> None:
        """Until somebody waits, a batch is full, or what came had its time to gather. Looks by itself, so that who puts
        something in need not wake this thread, which on a busy core takes the core from them; when nothing came for long,
        it sleeps."""
        looks = 0
        while self._closing_at is None and not self._awaited and len(self._queue) < self._bounds.batch_entries_max:
            if self._queue and looks:
                return
            self._asleep = not self._queue and looks > IDLE_LOOKS
            self._changed.wait(None if self._asleep else self._bounds.gather_ms / 1e3)
            looks = 0 if self._asleep else looks + 1
            self._asleep = False

    # ---------------------------------------------------------------------------------------- the writer's thread

    def _run(self) -> None:
        try:
            while batch := self._take():
                if not self._write(batch):
                    return
                with self._changed:
                    self._bytes -= sum(item.size for item in batch)
                    self._writing = 0
        finally:
            self._writer.disconnect()

    def _write(self, batch: Sequence[Item]) -> bool:
        """Until the batch is committed, or is broken up and its one bad entry named. False: the drain time is over."""
        pause_ms = self._bounds.retry_ms_min
        while True:
            try:
                self._write_once(batch)
            except (psycopg.Error, OSError, ShipworthyError) as error:
                away = error if isinstance(error, StoreUnavailable) else unavailable(error)
                if away is None:
                    return self._divide(batch, error)
                self._degraded(away, len(batch))
                if not self._pause(0.0 if passing(error) and not self._trouble else pause_ms / 1e3):
                    self._resolve(batch, away)
                    return False
                self._trouble = str(away)
                pause_ms = min(pause_ms * 2, self._bounds.retry_ms_max)
            except Exception as error:  # noqa: BLE001 - a defect must not end the writer: its entry is named, others go on
                return self._divide(batch, error)
            else:
                self._trouble = ""
                self._resolve(batch, None)
                return True

    def _write_once(self, batch: Sequence[Item]) -> None:
        """Intents first: an exchange that has one in the same batch takes it away again."""
        if intents := [intent for item in batch if (intent := item.intent()) is not None]:
            self._writer.intend(intents)
        if entries := [entry for item in batch if (entry := item.entry()) is not None]:
            self._writer.write(entries)

    def _divide(self, batch: Sequence[Item], error: Exception) -> bool:
        """One bad entry fails the whole batch: halves are tried until it stands alone."""
        if len(batch) > 1:
            half = len(batch) // 2
            return self._write(batch[:half]) and self._write(batch[half:])
        what = batch[0].what
        of = what.id if isinstance(what, Entry) else what.hold.id
        self._observe(Failed("recorder", f"{type(error).__name__}: {first_line(error)}", str(of), ""))
        self._resolve(batch, StoreUnavailable(f"store.refused: the row of {of} cannot be stored ({first_line(error)})"))
        return True

    def _degraded(self, away: StoreUnavailable, batch: int) -> None:
        if not self._trouble:
            self._observe(StoreDegraded("recorder", str(away), batch + len(self._queue)))

    def _pause(self, seconds: float) -> bool:
        """Waits before the next try; False when the drain time is over."""
        until = time.monotonic() + seconds
        with self._changed:
            while True:
                now = time.monotonic()
                if self._closing_at is not None and now >= self._closing_at:
                    return False
                if now >= until:
                    return True
                self._changed.wait(until - now)

    def _resolve(self, batch: Sequence[Item], failed: StoreUnavailable | None) -> None:
        """Tells whoever waits; on their loop, and before them whoever settles."""
        awaited = [(item.what, item.waiter) for item in batch if item.waiter is not None]
        if not awaited:
            return

        def tell() -> None:
            for what, waiter in awaited:
                if failed is None and isinstance(what, Entry):
                    self._settled(what)
                if waiter.done():
                    continue
                if failed is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(failed)

        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            awaited[0][1].get_loop().call_soon_threadsafe(tell)

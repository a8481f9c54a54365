"""The recorder: what ended is sealed, grouped and committed by one writer a worker; so is what is about to begin on a lease.

``record`` and ``intended`` return when what they were given is committed; ``enqueue`` and ``intend`` return at once. All
share one bounded queue and one writer thread, which takes what has gathered while the last batch was under way: under load
batches grow by themselves; and a second thread encodes and seals what waits while the store is at the batch before. Both
keep their work off the event loop. An intent whose exchange ends before it was written is left out.

What a caller was told is recorded stays recorded, whatever is killed: the answer comes after the commit. What is said twice
because an answer was lost counts once (migration 0004). An entry whose caller gave up waiting stays in the queue and is
still written, with the flag ``record_late``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

import psycopg

from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.sheets import sheet_ahead
from shipworthy.adapters.store.trouble import first_line, passing, unavailable
from shipworthy.adapters.store.vault import Vault
from shipworthy.adapters.store.waiting import Item, RecorderBounds, Waiting
from shipworthy.model.errors import ShipworthyError, StoreUnavailable
from shipworthy.model.observation import Failed, StoreDegraded
from shipworthy.model.op import Observe
from shipworthy.ports import Entry, Intent


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
        self._vault = vault
        self._line = Waiting(self._bounds)
        self._trouble = ""  # why the last batch failed; "" when it did not
        self._threads = [
            threading.Thread(target=self._run, name="recorder", daemon=True),
            threading.Thread(target=self._make_ahead, name="recorder-ahead", daemon=True),
        ]

    async def record(self, entry: Entry) -> None:
        await self._committed(entry, self._bounds.record_s)

    def enqueue(self, entry: Entry) -> None:
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
        return len(self._line)

    async def close(self, within_s: float = 10.0) -> int:
        """Drains the queue for at most ``within_s``; returns how many entries were left behind: the sweeper settles those
        that held money, and each is observed."""
        self._line.close(within_s)
        if self._threads[0].is_alive():
            await asyncio.to_thread(self._threads[0].join, within_s + 2.0)
        left = self.waiting
        if left:
            self._observe(StoreDegraded("recorder.close", self._trouble or "the drain time is over", left))
        return left

    def _put(self, what: Entry | Intent, waiter: asyncio.Future[None] | None) -> Item:
        if self._threads[-1].ident is None:
            for thread in self._threads:
                thread.start()
        item = Item(what, waiter)
        self._line.put(item, self._trouble)
        return item

    # ---------------------------------------------------------------------------------------- beside the writer

    def _make_ahead(self) -> None:
        """Sheets of the next batch, while the store is at the last one."""
        while (item := self._line.next_ahead()) is not None:
            entry = item.entry()
            with suppress(Exception):  # a defect in one row: the writer meets it again, and names its entry
                item.sheet = sheet_ahead(entry, self._vault) if entry is not None else None

    # ---------------------------------------------------------------------------------------- the writer's thread

    def _run(self) -> None:
        try:
            while batch := self._line.take():
                if not self._write(batch):
                    return
                self._line.written(batch)
        finally:
            self._line.end()
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
                self._degraded(away)
                if not self._line.pause(0.0 if passing(error) and not self._trouble else pause_ms / 1e3):
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
            self._writer.write(entries, ahead=[item.sheet for item in batch if item.sheet is not None])

    def _divide(self, batch: Sequence[Item], error: Exception) -> bool:
        """One bad entry fails the whole batch: halves are tried until it stands alone."""
        if len(batch) > 1:
            half = len(batch) // 2
            return self._write(batch[:half]) and self._write(batch[half:])
        what = batch[0].what
        of = what.row.id if isinstance(what, Entry) else what.hold.id
        self._observe(Failed("recorder", f"{type(error).__name__}: {first_line(error)}", str(of), ""))
        self._resolve(batch, StoreUnavailable(f"store.refused: the row of {of} cannot be stored ({first_line(error)})"))
        return True

    def _degraded(self, away: StoreUnavailable) -> None:
        if not self._trouble:
            self._observe(StoreDegraded("recorder", str(away), len(self._line)))

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

"""What every request depends on does not stand in the queue of the requests."""

from __future__ import annotations

import asyncio

from shipworthy.adapters.store.keys import StoreKeys
from shipworthy.adapters.store.pauses import StorePauses
from shipworthy.adapters.store.pool import Store, StoreRole


def test_keys_and_pauses_are_asked_for_past_the_queue(store_urls) -> None:
    """Every connection of the application is taken and hundreds wait: keys, pauses and readiness are answered at once."""

    async def scene() -> None:
        async with Store(store_urls.url) as store:
            freed = asyncio.Event()
            taken = asyncio.Semaphore(0)

            async def holder() -> None:
                async with store.connection(StoreRole.APP):
                    taken.release()
                    await freed.wait()

            holders = [asyncio.create_task(holder()) for _ in range(200)]
            for _ in range(store.bounds.app_connections_max):
                await taken.acquire()
            try:
                async with asyncio.timeout(store.bounds.wait_s / 2):
                    assert await StoreKeys(store).version() >= 0
                    assert await StoreKeys(store).find("no-such-key") is None
                    assert (await StorePauses(store).changed(0)).version >= 0
            finally:
                freed.set()
                await asyncio.gather(*holders)

    asyncio.run(scene())

"""The admin API over the real store: what is made, read and taken back there is one record, tenant by tenant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace as with_ports

import pytest

from shipworthy.adapters.store.acts import StoreActs
from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.exchanges import StoreExchanges
from shipworthy.adapters.store.key_cache import KeyCache
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.keys import StoreKeys
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.vault import Vault
from shipworthy.http.admin import make_admin
from shipworthy.kit.asgi import Answer, ask
from shipworthy.kit.memory_plane import memory_plane
from shipworthy.kit.rows import row
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Bodies
from shipworthy.model.op import Op, SystemClock
from shipworthy.ports import ControlPlane, Entry

KEYRING = Keyring((Kek("k-test", b"k" * 32),), b"p" * 32)


def over(store: Store) -> ControlPlane:
    """The plane with the store's own ports."""
    return with_ports(
        memory_plane().plane,
        keys=StoreKeys(store),
        acts=StoreActs(store),
        exchanges=StoreExchanges(store, Vault(KEYRING)),
    )


async def sent(plane: ControlPlane, method: str, target: str, token: str, **body: object) -> Answer:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    return await ask(make_admin(plane), method, target, headers, json.dumps(body).encode())


def test_a_key_lives_and_dies_by_the_api(fresh_store: object) -> None:
    async def story() -> None:
        async with asyncio.timeout(30), Store(fresh_store.url) as store:
            plane = over(store)
            made = (await sent(plane, "POST", "/admin/v1/keys", "northwind-admin", role="backend", name="ci")).json()
            cache = KeyCache(StoreKeys(store), plane.pepper, SystemClock(), plane.observe)
            principal = await cache.verify(Op.for_cli(plane.observe), made["secret"])
            assert (principal.tenant, principal.key_role) == ("northwind", "backend")
            key_id = made["key"]["id"]
            assert (await sent(plane, "DELETE", f"/admin/v1/keys/{key_id}", "southwind-admin")).status == 404
            assert (await sent(plane, "DELETE", f"/admin/v1/keys/{key_id}", "operator")).json()["state"] == "revoked"
            listed = (await sent(plane, "GET", "/admin/v1/keys", "northwind-admin")).json()["keys"]
            assert [key["state"] for key in listed] == ["revoked"]
            await asyncio.sleep(cache.bounds.stale_ms / 1_000 + 0.05)
            with pytest.raises(Refusal, match="key_revoked"):
                await cache.verify(Op.for_cli(plane.observe), made["secret"])
            async with store.operator() as conn:
                acts = await (await conn.execute("select tenant, actor, act from admin_act order by at")).fetchall()
            assert acts == [
                ("northwind", "ann", "key.create"),
                ("northwind", "olga", "key.revoke"),
                ("northwind", "ann", "keys.read"),
            ]

    asyncio.run(story())


def test_reads_are_shown_and_recorded_tenant_by_tenant(fresh_store: object, tenant_name: Callable[[str], str]) -> None:
    async def story() -> None:
        ours, theirs = row(tenant="northwind"), row(tenant="southwind")
        async with asyncio.timeout(30), Store(fresh_store.url) as store:
            writer = BatchWriter(store.conninfo(StoreRole.RECORDER), Vault(KEYRING))
            writer.write([Entry(each, Bodies(b"asked", b"said", False), None, None) for each in (ours, theirs)])
            writer.disconnect()
            plane = over(store)
            listed = (await sent(plane, "GET", "/admin/v1/exchanges", "northwind-admin")).json()["exchanges"]
            assert [line["id"] for line in listed] == [str(ours.id)]
            assert (await sent(plane, "GET", f"/admin/v1/exchanges/{theirs.id}", "northwind-admin")).status == 404
            bodies = (await sent(plane, "GET", f"/admin/v1/exchanges/{theirs.id}/bodies", "operator")).json()
            assert (bodies["request"], bodies["reply"]) == ("asked", "said")
            span = "since=2026-11-21&until=2026-11-23"
            report = (await sent(plane, "GET", f"/admin/v1/cost?by=tenant&{span}", "operator")).json()
            assert report["total"]["charged_nano"] == ours.charged_nano + theirs.charged_nano
            async with store.operator() as conn:
                acts = await (await conn.execute("select tenant, act from admin_act order by at")).fetchall()
            assert acts == [
                ("northwind", "exchanges.read"),
                ("northwind", "exchange.read"),
                ("southwind", "body.read"),
                ("", "cost.read"),
            ]

    asyncio.run(story())


def test_a_store_that_is_away_shows_nothing(fresh_store: object) -> None:
    async def story() -> None:
        store = Store(fresh_store.url)
        await store.open()
        plane = over(store)
        await store.close()
        for target in ("/admin/v1/exchanges", f"/admin/v1/exchanges/{row().id}", "/admin/v1/cost", "/admin/v1/keys"):
            answer = await sent(plane, "GET", target, "operator")
            assert (answer.status, answer.json()["error"]["code"]) == (503, "admin.store_unavailable")

    asyncio.run(story())

"""A provider that asks for a certificate, and a certificate for it that is renewed while the server runs."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.authority import Authority, Issued
from tests.conftest import StoreUrls
from tests.journey.deployment import deployment, managed, said

from shipworthy.kit.scripted_server import ScriptedServer

CHAT = "/v1/chat/completions"
SEEN_S_MAX = 15.0


@pytest.fixture
def gateways(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "gateways")


@pytest.fixture
def asking(tmp_path: Path, gateways: Authority) -> Iterator[str]:
    """The address of a provider that serves whoever shows a certificate of ``gateways``.

    With TLS 1.2, for asyncio's servers send no alerts: with 1.3 a stranger would hear nothing but the connection's end.
    """
    context = Authority(tmp_path, "house").server()
    context.load_verify_locations(gateways.file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = ScriptedServer(tls=context)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    yield server.base_url
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def put(folder: Path, issued: Issued) -> None:
    for source, name in ((issued.key, "gateway.key"), (issued.cert, "gateway.pem")):
        (folder / f"{name}.new").write_bytes(source.read_bytes())
        (folder / f"{name}.new").rename(folder / name)


def await_true(true: Callable[[], bool]) -> None:
    until = time.monotonic() + SEEN_S_MAX
    while not true() and time.monotonic() < until:
        time.sleep(0.1)
    assert true()


def test_a_certificate_for_a_provider_is_renewed_without_a_restart(
    fresh_store: StoreUrls, tmp_path: Path, gateways: Authority, asking: str
) -> None:
    """What is on the disk now is what the next connection shows; a pair that does not fit changes nothing."""
    folder = tmp_path / "server"
    folder.mkdir()
    good, stranger = gateways.issue("good", host="gateway"), Authority(tmp_path, "others").issue("stranger", host="x")
    put(folder, good)
    (folder / "house.pem").write_bytes((tmp_path / "house.pem").read_bytes())
    tls = "ca_file: house.pem, client_cert: {file: gateway.pem}, client_key: {file: gateway.key}, keepalive_ms: 0"
    provider = f'  first:\n    {{kind: openai-compatible, base_url: "{asking}", {tls}, ' + (
        "boundary: {regions: [eu], network: private, trains_on_data: false, retention_days: 0}}\n"
    )

    def edit(text: str) -> str:
        before, _, rest = text.partition("  first:\n")
        return before + provider + "  second:\n" + rest.partition("  second:\n")[2]

    store, environ = managed(fresh_store.url, fresh_store.migrate_url)
    with deployment(folder, store, environ=environ, edit=edit) as running, running.client() as client:

        def status() -> int:
            return client.post(CHAT, json=said("Good morning.")).status_code

        assert status() == 200
        (folder / "gateway.key").write_bytes(stranger.key.read_bytes())
        await_true(lambda: "client_key: the key does not belong to the certificate" in running.log)
        assert status() == 200
        put(folder, stranger)
        await_true(lambda: status() == 502)
        # A provider says no when the request is on its way already: its alert tells why, unless a reset overtakes it.
        await_true(lambda: '"kind":"connect"' in running.log or '"kind":"broken"' in running.log)
        put(folder, gateways.issue("fresh", host="gateway"))
        await_true(lambda: status() == 200)
        assert good.key.read_text().splitlines()[1] not in running.log

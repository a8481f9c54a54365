"""A server that may open few files: more clients than it can have do not stop it, and afterwards all is as before."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from tests.conftest import StoreUrls
from tests.journey import wire
from tests.journey.brief import brief
from tests.journey.deployment import Deployment, deployment, managed, said

FILES = 150
CLIENTS = 200
LIMITED = (
    f"import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (64, {FILES}));"
    "runpy.run_module('shipworthy', run_name='__main__')"
)


@pytest.fixture(scope="module")
def server(module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("few-files")
    store, environ = managed(module_store.url, module_store.migrate_url)
    with deployment(folder, store, environ=environ | brief(folder), command=("-c", LIMITED, "serve")) as running:
        yield running


def test_a_worker_takes_what_it_is_allowed(server: Deployment) -> None:
    (worker,) = server.processes("worker")
    assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (FILES, FILES)


def test_more_clients_than_files(server: Deployment) -> None:
    """Those that are too many are closed at once; those that say nothing soon; then everyone is served again."""
    socks = [wire.connect(server.base) for _ in range(CLIENTS)]
    try:
        at_once = sum(wire.closed(sock, 0.01) for sock in socks)
        assert at_once >= CLIENTS - FILES // 3
        assert all(wire.closed(sock, 4.0) for sock in socks)
    finally:
        for sock in socks:
            sock.close()
    deadline = time.monotonic() + 5
    status = 0
    while status != 200 and time.monotonic() < deadline:
        try:
            with server.client() as client:
                status = client.post(wire.CHAT, json=said("hi")).status_code
        except httpx.HTTPError:
            time.sleep(0.05)
    assert status == 200


def test_many_requests_at_once_within_few_files(server: Deployment) -> None:
    """As many as have a place are all served: a place leaves room for its provider and the store."""
    token = server.token()
    slow = wire.request(token, said("[[fault:late-head delay_ms=500]] hi"))
    places = FILES // 3 - 5
    socks = [wire.connect(server.base) for _ in range(places)]
    try:
        for sock in socks:
            sock.sendall(slow)
        assert {wire.read_answer(sock).status for sock in socks} == {200}
    finally:
        for sock in socks:
            sock.close()
    server.await_no_holds()

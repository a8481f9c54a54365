"""The last good manifest stays in force, whatever stands on the disk and whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import StoreUrls
from tests.journey.deployment import Deployment, deployment, managed, said

CHAT = "/v1/chat/completions"
SEEN_S_MAX = 15.0


@pytest.fixture(scope="module")
def server(module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    store, environ = managed(module_store.url, module_store.migrate_url)
    with deployment(tmp_path_factory.mktemp("last-good"), store, environ=environ) as running:
        yield running


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SEEN_S_MAX
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert holds()


@pytest.mark.parametrize(
    "edit",
    [lambda text: text[: len(text) // 2] + "\n  half: [", lambda text: text.replace("port: 0", "port: 1", 1)],
    ids=["half written", "asks for what cannot change"],
)
def test_a_worker_that_starts_again_gets_the_manifest_in_force(server: Deployment, edit: Callable[[str], str]) -> None:
    """Design §7: a bad reload keeps the last good one; a respawn is no way around it."""
    config: Path = server.config
    good, token, before = config.read_text(), server.token(), readiness(server)
    config.write_text(edit(good))
    try:
        until(lambda: readiness(server)["status"] == "degraded")
        for module in ("worker", "control"):
            replace(server, module)
        with server.client(token) as client:
            assert client.post(CHAT, json=said("Good morning.")).status_code == 200
        assert readiness(server)["digest"] == before["digest"]
        assert readiness(server)["status"] == "degraded"
    finally:
        config.write_text(good)
    until(lambda: readiness(server)["status"] == "ready")


def replace(server: Deployment, module: str) -> None:
    """Kills a process and waits for the one that takes its place."""
    old = server.processes(module)
    os.kill(old[0], signal.SIGKILL)
    until(lambda: server.processes(module) not in ([], old))


def readiness(server: Deployment) -> dict[str, str]:
    with server.client("nobody") as client:
        checks: dict[str, str] = client.get("/readyz").json()
        return checks

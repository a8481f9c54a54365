"""A secret that a file holds is rotated while the server runs."""

from __future__ import annotations

import time
from pathlib import Path

from tests.conftest import StoreUrls
from tests.journey.deployment import deployment, managed, said

CHAT = "/v1/chat/completions"
SEEN_S_MAX = 15.0


def test_a_rotated_provider_key_is_used_without_a_restart(module_store: StoreUrls, tmp_path: Path) -> None:
    """How-to "rotate keys": writing the file is all; the manifest's digest holds the reference, so it stays."""
    store, environ = managed(module_store.url, module_store.migrate_url)
    with deployment(tmp_path, store, environ=environ) as running, running.client() as client:
        log = running.providers.first.script.log
        assert client.post(CHAT, json=said("Good morning.")).status_code == 200
        before = client.get("/readyz").json()["digest"]
        (tmp_path / "provider.key").write_text("second-value-2\n")
        until = time.monotonic() + SEEN_S_MAX
        while log[-1].headers["authorization"] != "Bearer second-value-2" and time.monotonic() < until:
            time.sleep(0.2)
            assert client.post(CHAT, json=said("Good morning.")).status_code == 200
        assert log[-1].headers["authorization"] == "Bearer second-value-2"
        assert client.get("/readyz").json()["digest"] == before
        assert "second-value-2" not in running.log

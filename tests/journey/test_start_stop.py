"""Starts that cannot be or are broken off, and every way to end: a clear word, an exit code, nothing left running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest
from tests.conftest import StoreUrls
from tests.journey.deployment import MANIFEST, PROVIDER_KEY, Deployment, deployment, managed, said

CHAT = "/v1/chat/completions"
MOMENTS_S = (0.1, 0.3, 0.5, 0.7, 0.9, 1.2, 2.0)
END_S_MAX = 20.0
DRAIN_S = 2


@dataclass(frozen=True)
class Place:
    """Where a server may be started; ``mark`` is in the environment of all its processes and of no other."""

    folder: Path
    mark: str

    def write(self, edit: Callable[[str], str] = lambda text: text, store: str = "") -> None:
        text = MANIFEST.substitute(
            first="http://127.0.0.1:9/v1", second="http://127.0.0.1:9/v1", workers=2, drain=DRAIN_S,
            durability="strict", budget=100, store=store,
        )  # fmt: skip
        (self.folder / "shipworthy.yaml").write_text(edit(text))
        (self.folder / "provider.key").write_text(PROVIDER_KEY)

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "shipworthy", "serve", "-c", str(self.folder / "shipworthy.yaml")]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "TEST_MARK": self.mark},
        )  # fmt: skip

    def left(self) -> list[int]:
        """Processes of this server that run still."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and f"TEST_MARK={self.mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


@pytest.fixture
def place(module_store: StoreUrls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    store, environ = managed(module_store.url, module_store.migrate_url)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    place = Place(tmp_path, tmp_path.name + next(iter(environ)))
    place.write(store=store)
    return place


@pytest.mark.parametrize("everyone", [False, True], ids=["sigterm", "ctrl-c"])
def test_a_start_may_be_broken_off_at_any_moment(place: Place, everyone: bool) -> None:
    """SIGTERM to the server, or Ctrl-C, which reaches every process of the terminal."""
    for moment_s in MOMENTS_S:
        process = place.start()
        time.sleep(moment_s)
        if everyone:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        _, log = ended(process)
        assert process.returncode in (0, 130, -signal.SIGINT, -signal.SIGTERM), log
        assert "Traceback" not in log, (moment_s, log)
        assert place.left() == [], moment_s


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Standard output and error of a server that ends by itself."""
    try:
        return process.communicate(timeout=END_S_MAX)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise AssertionError(f"it runs still: {process.communicate(timeout=END_S_MAX)}") from None


def refused(place: Place) -> str:
    """What is said by a server that does not start."""
    began = time.monotonic()
    process = place.start()
    out, log = ended(process)
    assert process.returncode == 1, log
    assert "serving" not in out
    assert "Traceback" not in log
    assert time.monotonic() - began < END_S_MAX
    assert place.left() == []
    return log


def test_a_port_that_is_taken(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = place.folder / "shipworthy.yaml"
        text = config.read_text()
        config.write_text(text.replace("server: {port: 0", f"server: {{port: {port}"))
        said_of_data = refused(place)
        assert f"cannot listen on 127.0.0.1:{port}" in said_of_data
        assert "another process listens there" in said_of_data
        config.write_text(text.replace("admin: {port: 0", f"admin: {{port: {port}"))
        assert f"cannot listen on 127.0.0.1:{port}" in refused(place)


def test_a_store_that_does_not_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.folder / "url").write_text("postgresql://nobody:secret-password@127.0.0.1:9/nothing")
    place.write(store=f"{{url: {{file: {place.folder}/url}}}}")
    log = refused(place)
    assert "store." in log
    assert "secret-password" not in log


def test_a_manifest_with_problems(place: Place) -> None:
    config = place.folder / "shipworthy.yaml"
    config.write_text(config.read_text().replace("models: [one]", "models: [ohne]"))
    log = refused(place)
    assert "ohne" in log
    assert "shipworthy check" in log


@pytest.fixture
def server(fresh_store: StoreUrls, tmp_path: Path) -> Iterator[Deployment]:
    store, environ = managed(fresh_store.url, fresh_store.migrate_url)
    with deployment(tmp_path, store, environ=environ, drain=DRAIN_S) as running:
        yield running


def test_a_stream_that_outlasts_the_drain_is_cut(server: Deployment) -> None:
    """Its client is told, what came is charged and recorded, and a second SIGTERM changes nothing."""
    body = said("[[fault:slow delay_ms=400]] so many words that they cannot all be said in time", stream=True)
    with server.client() as client, client.stream("POST", CHAT, json=body) as response:
        pieces = response.iter_raw()
        heard = next(pieces)
        began = time.monotonic()
        for _ in range(2):
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        heard += b"".join(pieces)
    assert DRAIN_S - 0.5 < time.monotonic() - began < DRAIN_S + 2
    assert b'"code":"server.draining"' in heard.rpartition(b"data: ")[2]
    assert server.process.wait(END_S_MAX) == 0
    (row,) = server.rows("id = %s", response.headers["x-shipworthy-request-id"])
    assert row["outcome"] == "cut"
    assert row["charged_nano"] == sum(line["amount_nano"] for line in row["charge_lines"]) > 0
    assert server.holds() == 0


def test_ctrl_c_lets_a_stream_finish(server: Deployment) -> None:
    body = said("[[fault:slow delay_ms=60]] some words to say again", stream=True)
    with server.client() as client, client.stream("POST", CHAT, json=body) as response:
        pieces = response.iter_raw()
        heard = next(pieces)
        for pid in (server.process.pid, *server.processes("worker"), *server.processes("control")):
            os.kill(pid, signal.SIGINT)
        heard += b"".join(pieces)
    assert heard.endswith(b"data: [DONE]\n\n")
    assert server.process.wait(END_S_MAX) == 0
    assert "Traceback" not in server.log
    (row,) = server.rows("id = %s", response.headers["x-shipworthy-request-id"])
    assert row["outcome"] == "served"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.base}/healthz", trust_env=False)

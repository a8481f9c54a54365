"""kill -9 of every process of the server: nothing that was acknowledged is lost, nothing is charged twice, all comes back.

One server with two workers over its own embedded PostgreSQL. Each test kills, waits, and leaves it well for the next.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from tests.conftest import StoreUrls
from tests.journey.brief import brief
from tests.journey.deployment import Deployment, deployment, managed, running, said
from tests.journey.wire import CHAT

from shipworthy.adapters.embedded.postgres import attach

WORKERS = 2
BACK_S = 15.0
"""Within which every part of the server that was killed serves again, on two busy cores."""
RELAXED_S = 2.0
"""How old, on two busy cores, an answer without a row may be when its worker is killed; 50 ms on idle ones."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("crash")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        admin_port = probe.getsockname()[1]
    edit: Callable[[str], str] = lambda text: text.replace("admin: {port: 0}", f"admin: {{port: {admin_port}}}")  # noqa: E731
    home: Path | None = None
    try:
        with deployment(folder, "{path: store}", edit=edit, workers=WORKERS) as started:
            cluster = attach(folder / "store")
            assert cluster is not None
            home = cluster.data_path.parent
            yield started
    finally:
        if home is not None:
            shutil.rmtree(home, ignore_errors=True)  # as root it lies outside the test's own folder


class Streams:
    """Slow streams in flight, each of a session of its own."""

    def __init__(self, server: Deployment, name: str, count: int, *, delay_ms: int = 60) -> None:
        self.name = name
        self._server = server
        self._body = said(f"[[fault:slow delay_ms={delay_ms}]] a few words more to say again", stream=True)
        self._token = server.token()
        self._pool = ThreadPoolExecutor(count)
        self._begun = threading.Semaphore(0)
        self.answers: list[Future[tuple[bool, bytes]]] = [self._pool.submit(self._read, n) for n in range(count)]
        for _ in range(count):
            assert self._begun.acquire(timeout=10)

    def _read(self, number: int) -> tuple[bool, bytes]:
        """Whether the stream came to its end, and what came."""
        body = b""
        headers = {"x-shipworthy-session": f"{self.name}-{number}"}
        try:
            with (
                self._server.client(self._token, headers) as client,
                client.stream("POST", CHAT, json=self._body) as response,
            ):
                for piece in response.iter_raw():
                    if not body:
                        self._begun.release()
                    body += piece
        except httpx.HTTPError:
            return False, body
        return body.endswith(b"data: [DONE]\n\n"), body

    def whole(self) -> list[bool]:
        results = [answer.result(20)[0] for answer in self.answers]
        self._pool.shutdown()
        return results


def await_ready(server: Deployment, seconds: float = BACK_S) -> float:
    """How long it took until /readyz said yes."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            with httpx.Client(base_url=server.base, timeout=2, trust_env=False) as client:
                if client.get("/readyz").json()["status"] == "ready":
                    return time.monotonic() - began
        except (httpx.HTTPError, ValueError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"not ready after {seconds:g} s:\n{server.log[-3_000:]}")


def await_gone(pids: list[int], seconds: float = BACK_S) -> None:
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if alive(pid)]


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def await_processes(server: Deployment, module: str, count: int, without: list[int]) -> None:
    deadline = time.monotonic() + BACK_S
    while time.monotonic() < deadline:
        found = server.processes(module)
        if len(found) == count and not set(found) & set(without):
            return
        time.sleep(0.05)
    raise AssertionError(f"{module}: {server.processes(module)} after {without}")


def one_row_each(server: Deployment, name: str, count: int) -> dict[str, dict[str, Any]]:
    rows = server.await_rows(count, f"session like '{name}-%%'", seconds=BACK_S)
    sessions = Counter(row["session"] for row in rows)
    assert sessions == {f"{name}-{n}": 1 for n in range(count)}
    return {row["session"]: row for row in rows}


def books_balance(server: Deployment) -> None:
    """Every level has charged what the rows say, and holds nothing."""
    server.await_no_holds(BACK_S)
    charged = server.sql("select coalesce(sum(charged_nano), 0) as n from exchange where tenant = 'acme'")[0]["n"]
    counters = server.sql("select * from counter where tenant = 'acme'")
    assert counters
    for counter in counters:
        assert (counter["charged_nano"], counter["held_nano"]) == (charged, 0), counter["key"]
    assert server.sql("select coalesce(sum(in_flight), 0) as n from pace")[0]["n"] == 0


def served(server: Deployment) -> bool:
    with server.client() as client:
        return client.post(CHAT, json=said("hi")).status_code == 200


def test_a_killed_worker(server: Deployment) -> None:
    """Its exchanges are settled at their ceiling and recorded, once; the other worker's streams go on."""
    streams = Streams(server, "worker", 12)
    workers = server.processes("worker")
    os.kill(workers[0], signal.SIGKILL)
    began = time.monotonic()
    assert served(server)
    assert time.monotonic() - began < 3.0
    whole = streams.whole()
    rows = one_row_each(server, "worker", 12)
    for number, finished in enumerate(whole):
        row = rows[f"worker-{number}"]
        if finished:
            assert row["outcome"] == "served"
        else:
            assert (row["outcome"], row["flags"]) == ("failed", ["presumed"])
            assert row["charged_nano"] == row["held_nano"] > 0
            assert (row["tenant"], row["use_case"], row["subject"]) == ("acme", "chat", "ada")
    assert set(whole) == {True, False}, "both workers had streams"
    await_processes(server, "worker", WORKERS, workers[:1])
    books_balance(server)


def test_all_workers_and_the_sweepers_process_at_once(server: Deployment) -> None:
    """The listening socket is the supervisor's: clients wait in it for the next worker."""
    streams = Streams(server, "all", 6)
    killed = server.processes("worker") + server.processes("control")
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    assert served(server)
    assert time.monotonic() - began < BACK_S
    assert streams.whole() == [False] * 6
    rows = one_row_each(server, "all", 6)
    assert {tuple(row["flags"]) for row in rows.values()} == {("presumed",)}
    await_processes(server, "worker", WORKERS, killed)
    await_processes(server, "control", 1, killed)
    books_balance(server)


def test_a_killed_control_plane_comes_back_and_nobody_notices(server: Deployment) -> None:
    streams = Streams(server, "control", 4)
    killed = server.processes("control")
    os.kill(killed[0], signal.SIGKILL)
    assert served(server)
    assert streams.whole() == [True] * 4
    await_processes(server, "control", 1, killed)
    token = server.token(subject="root", groups=("ops",))
    deadline = time.monotonic() + BACK_S
    status = 0
    while status != 200 and time.monotonic() < deadline:
        try:
            with httpx.Client(
                base_url=server.admin, headers={"authorization": f"Bearer {token}"}, trust_env=False
            ) as client:
                status = client.get("/admin/v1/exchanges?limit=1").status_code
        except httpx.HTTPError:
            time.sleep(0.1)
    assert status == 200


@pytest.mark.parametrize("away_s", [0.0, 11.0])
def test_a_killed_database_under_load(server: Deployment, away_s: float) -> None:
    """What was acknowledged is recorded, once; an outage longer than a lease is told by refusals; all comes back by itself.

    Its supervisor, stopped meanwhile, keeps the database away for ``away_s``.
    """
    cluster = attach(server.folder / "store")
    assert cluster is not None
    stop = threading.Event()
    answers: list[tuple[int, str, str]] = []
    unready: list[str] = []

    def load(number: int) -> None:
        token = server.token(subject=f"load-{number}")
        with server.client(token) as client:
            while not stop.is_set():
                response = client.post(CHAT, json=said("hi", stream=number % 2 == 0))
                answers.append((response.status_code, response.headers["x-shipworthy-request-id"], response.text))
                time.sleep(0.05)

    def look() -> None:
        with httpx.Client(base_url=server.base, timeout=5, trust_env=False) as client:
            while not stop.is_set():
                response = client.get("/readyz")
                if response.status_code != 200:
                    unready.append(response.json()["store"])
                time.sleep(0.05)

    threads = [threading.Thread(target=load, args=(n,)) for n in range(4)] + [threading.Thread(target=look)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    server.process.send_signal(signal.SIGSTOP)
    try:
        os.kill(cluster.pid, signal.SIGKILL)
        time.sleep(away_s)
    finally:
        server.process.send_signal(signal.SIGCONT)
    time.sleep(1.5)
    await_ready(server)
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    assert unready or not away_s
    assert all("store" in reason for reason in unready)
    _account_for(server, answers)
    assert not away_s or any(status == 503 for status, _, _ in answers)
    books_balance(server)
    assert served(server)


def _account_for(server: Deployment, answers: list[tuple[int, str, str]]) -> None:
    statuses = Counter(status for status, _, _ in answers)
    assert statuses[200] > 20
    assert set(statuses) <= {200, 503}, statuses
    rows = {str(row["id"]): row for row in server.rows("subject like 'load-%%'")}
    for status, request_id, text in answers:
        if status == 200 and '"error"' not in text:
            assert rows[request_id]["outcome"] == "served", (rows[request_id], text)
        else:
            assert any(code in text for code in ("reserve.store_unavailable", "record.unavailable")), text
    lost = [request_id for status, request_id, text in answers if status == 200 and request_id not in rows]
    assert lost == []


def test_relaxed_what_has_no_row_was_answered_just_before_a_kill(module_store: StoreUrls, tmp_path: Path) -> None:
    """What a killed worker had not written yet is lost, and nothing else: no row twice, none older than the window."""
    store, environ = managed(module_store.url, module_store.migrate_url)
    with deployment(tmp_path, store, environ=environ, durability="relaxed", workers=2) as server:
        answered: dict[str, float] = {}
        kills: list[float] = []
        stop = threading.Event()

        def load(number: int) -> None:
            with server.client(server.token(subject=f"relaxed-{number}")) as client:
                while not stop.is_set():
                    try:
                        answer = client.post(CHAT, json=said("hi"))
                    except httpx.HTTPError:
                        continue
                    assert answer.status_code == 200
                    answered[answer.headers["x-shipworthy-request-id"]] = time.monotonic()

        threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(0.7)
            workers = server.processes("worker")
            kills.append(time.monotonic())
            os.kill(workers[0], signal.SIGKILL)
            await_processes(server, "worker", WORKERS, workers[:1])
        stop.set()
        for thread in threads:
            thread.join()
        assert len(answered) > 50
        books_balance(server)
        rows = Counter(str(row["id"]) for row in server.rows())
        assert {rows[request_id] for request_id in answered} <= {0, 1}
        lost = [at for request_id, at in answered.items() if not rows[request_id]]
        assert len(lost) < len(answered) / 10
        assert all(any(kill - RELAXED_S <= at <= kill + RELAXED_S for kill in kills) for at in lost)


def test_a_stopped_server_lets_streams_finish(server: Deployment) -> None:
    """SIGTERM: not ready, what runs finishes and is recorded, nothing new is taken, exit 0, nothing is left."""
    everything = [*server.processes("worker"), *server.processes("control")]
    cluster = attach(server.folder / "store")
    assert cluster is not None
    streams = Streams(server, "drain", 6, delay_ms=120)
    url = server.store_url
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    with httpx.Client(base_url=server.base, timeout=5, trust_env=False) as client:
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["draining"]) == (503, "yes")
        refused = client.post(CHAT, json=said("hi"), headers={"authorization": f"Bearer {server.token()}"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server.draining")
        assert int(refused.headers["retry-after"]) >= 1
    assert streams.whole() == [True] * 6
    _await_closed(server)
    assert server.process.wait(20) == 0
    await_gone([*everything, cluster.pid], 1.0)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.base}/healthz", trust_env=False)
    with running(server.folder, server.providers) as again:
        assert again.store_url == url, "the same database, the same account"
        rows = one_row_each(again, "drain", 6)
        assert {row["outcome"] for row in rows.values()} == {"served"}
        books_balance(again)


def _await_closed(server: Deployment) -> None:
    """As soon as nobody serves, nobody is kept waiting: a connection is refused, or cut off, never left hanging."""
    deadline = time.monotonic() + BACK_S
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{server.base}/healthz", trust_env=False, timeout=3)
        except httpx.ConnectError:
            return
        except (httpx.ReadError, httpx.RemoteProtocolError):
            continue
        time.sleep(0.05)
    raise AssertionError("somebody still listens")


def test_a_killed_supervisor(server: Deployment) -> None:
    """Workers finish what runs and end; the port is free; the next start takes over the database that went on running."""
    with running(server.folder, server.providers) as doomed:
        orphans = [*doomed.processes("worker"), *doomed.processes("control")]
        cluster = attach(server.folder / "store")
        assert cluster is not None
        streams = Streams(doomed, "orphan", 6, delay_ms=80)
        doomed.process.kill()
        doomed.process.wait()
        assert streams.whole() == [True] * 6
        await_gone(orphans)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{doomed.base}/healthz", trust_env=False)
    assert alive(cluster.pid), "the database outlives its supervisor"
    with running(server.folder, server.providers) as again:
        adopted = attach(server.folder / "store")
        assert adopted is not None
        assert adopted.pid == cluster.pid
        rows = one_row_each(again, "orphan", 6)
        assert {row["outcome"] for row in rows.values()} == {"served"}
        books_balance(again)
        assert served(again)
    assert not alive(cluster.pid)


def test_everything_killed_at_once(server: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the machine loses its power: the next start recovers the database and settles what the dead still held."""
    with running(server.folder, server.providers) as doomed:
        cluster = attach(server.folder / "store")
        assert cluster is not None
        streams = Streams(doomed, "dark", 6, delay_ms=200)
        killed = [doomed.process.pid, *doomed.processes("worker"), *doomed.processes("control"), cluster.pid]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        doomed.process.wait()
        assert streams.whole() == [False] * 6
        await_gone(killed)
    for name, value in brief(tmp_path).items():
        monkeypatch.setenv(name, value)
    with running(server.folder, server.providers) as again:
        assert again.holds() == 6, "until it is sure that nobody else will settle them"
        rows = one_row_each(again, "dark", 6)
        assert {(row["outcome"], tuple(row["flags"])) for row in rows.values()} == {("failed", ("presumed",))}
        books_balance(again)
        assert served(again)

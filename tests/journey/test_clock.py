"""Wall clocks that step: forwards, backwards, by a second or a year, between requests and in the midst of them.

A whole worker in this process, over real PostgreSQL, with the machine's monotonic clock and a wall clock that the test sets.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.conftest import StoreUrls
from tests.journey.deployment import MANIFEST, PROVIDER_KEY, said

from shipworthy.bootstrap import DataWorker, Ground, development_issuer, read_manifest
from shipworthy.http.edge import DataPlane
from shipworthy.http.wire.answer import Answer
from shipworthy.http.wire.request import Request
from shipworthy.kit.scripted_config import ScriptedConfig
from shipworthy.kit.scripted_server import ScriptedServer
from shipworthy.launch import Launch
from shipworthy.model.observation import Failed, Observation
from shipworthy.model.op import uuid7
from shipworthy.ports import TokenWish

NS = 1_000_000_000
HOUR_S, DAY_S = 3_600, 86_400
STEPS_S = (0, -HOUR_S, 2 * HOUR_S, -400 * DAY_S, 40 * DAY_S, 400 * DAY_S, -1, 1, 0)
DURATION_NS_MAX = 5 * NS


class SteppedClock:
    """The machine's clocks, the wall's off by ``step_s``."""

    def __init__(self) -> None:
        self.step_s = 0

    def unix_ns(self) -> int:
        return time.time_ns() + self.step_s * NS

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class Client:
    """Reads all that it is sent, and stays."""

    paused = False
    keeping = True
    date = b""

    def __init__(self) -> None:
        self.read = bytearray()
        self.write: Callable[[bytes], None] = self.read.extend

    def now(self) -> float:
        return 0.0

    def soon(self, then: Callable[[], None]) -> None:
        then()

    async def drained(self) -> None: ...


class Bench:
    """A worker, asked without a network."""

    def __init__(self, plane: DataPlane, clock: SteppedClock, mint: Callable[[int], str]) -> None:
        self.clock = clock
        self._plane = plane
        self._mint = mint

    async def ask(self, text: str, *, token: str = "", stream: bool = False) -> tuple[int, str, bytes]:
        """Status, request id and body of an answer."""
        body = json.dumps(said(text, stream=stream)).encode()
        bearer = token or self._mint(self.clock.unix_ns())
        headers = [(b"authorization", b"Bearer " + bearer.encode()), (b"content-type", b"application/json")]
        request = Request("POST", "/v1/chat/completions", headers, "t:1", lambda taken: None)
        request.came(body)
        request.ended()
        client = Client()
        await self._plane(request, Answer(client, keep=True, bodiless=False, chunked=False))
        head, _, content = bytes(client.read).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        said_headers = dict(line.split(": ", 1) for line in lines)
        return int(first.split()[1]), said_headers["x-shipworthy-request-id"], content

    def token(self) -> str:
        return self._mint(self.clock.unix_ns())


@asynccontextmanager
async def bench(folder: Path, store: StoreUrls, observed: list[Observation]) -> AsyncIterator[Bench]:
    async with ScriptedServer(ScriptedConfig(allow_markers=True)) as upstream:
        path, clock = folder / "shipworthy.yaml", SteppedClock()
        given = {
            "workers": 1,
            "drain": 5,
            "durability": "strict",
            "budget": 100,
            "store": f"{{url: {{file: {folder}/url}}}}",
        }
        path.write_text(MANIFEST.substitute(first=upstream.base_url, second=upstream.base_url, **given))
        (folder / "url").write_text(store.url)
        (folder / "provider.key").write_text(PROVIDER_KEY)
        loaded = read_manifest(path)
        issuer = development_issuer(loaded)
        assert issuer is not None

        def mint(unix_ns: int) -> str:
            wish = TokenWish(tenant="acme", subject="ada", groups=("agents",), ttl_s=600)
            return issuer.mint(wish, uuid7(unix_ns), unix_ns)

        launch = Launch("worker 1", str(path), dict(loaded.texts), "stepped", store.url, {}, str(folder))
        async with Ground(loaded, store.url, observed.append, clock) as ground:
            worker = DataWorker(launch, loaded, ground, lambda _: None)
            try:
                yield Bench(DataPlane(worker), clock, mint)
            finally:
                await worker.close()


def run(story: Callable[[Bench], Coroutine[Any, Any, None]], folder: Path, store: StoreUrls) -> list[dict[str, Any]]:
    """Plays a story; the rows that it left, in the order of their making. Nothing is held, nothing failed unforeseen."""
    observed: list[Observation] = []

    async def whole() -> None:
        async with bench(folder, store, observed) as on:
            await story(on)

    asyncio.run(whole())
    assert [observation for observation in observed if isinstance(observation, Failed)] == []
    options = "-c role=shipworthy_operator -c search_path=shipworthy,public"
    with psycopg.connect(store.url, options=options, row_factory=dict_row) as conn:
        held = conn.execute("select count(*) as n from hold").fetchone()
        assert held == {"n": 0}
        wrong = conn.execute("select * from counter where held_nano <> 0 or charged_nano < 0").fetchall()
        assert wrong == []
        return conn.execute("select * from exchange order by recorded_at, id").fetchall()


def sane(row: dict[str, Any]) -> None:
    """Durations come from the monotonic clock alone."""
    assert 0 < row["duration_ns"] < DURATION_NS_MAX
    assert 0 <= row["first_token_ns"] <= row["duration_ns"]
    for step in row["steps"]:
        assert 0 <= step["start_ns"] <= row["duration_ns"], step
        assert 0 <= step["duration_ns"] <= row["duration_ns"], step
    for attempt in row["attempts"]:
        assert 0 < attempt["duration_ns"] <= row["duration_ns"]
    assert abs(row["arrived_unix_ns"] / NS - row["arrived_at"].timestamp()) < 0.001
    assert row["id"].int >> 80 == row["arrived_unix_ns"] // 1_000_000, "the id says when it arrived, as the record does"


def test_steps_between_requests(tmp_path: Path, fresh_store: StoreUrls) -> None:
    asked: list[tuple[str, float]] = []

    async def story(on: Bench) -> None:
        for step_s in STEPS_S:
            on.clock.step_s = step_s
            for stream in (False, True):
                status, request_id, body = await on.ask("hi", stream=stream)
                assert status == 200, body
                asked.append((request_id, time.time() + step_s))

    rows = run(story, tmp_path, fresh_store)
    assert [str(row["id"]) for row in rows] == [request_id for request_id, _ in asked], (
        "one row each, in their true order"
    )
    for row, (_, wall_s) in zip(rows, asked, strict=True):
        sane(row)
        assert row["outcome"] == "served"
        assert abs(row["arrived_at"].timestamp() - wall_s) < 5, "what the wall said then, however wrong"
        assert abs(row["recorded_at"].timestamp() - datetime.now(UTC).timestamp()) < 60, (
            "and the store's own clock beside it"
        )


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S, -400 * DAY_S, 40 * DAY_S])
def test_a_step_in_the_midst_of_a_request(tmp_path: Path, fresh_store: StoreUrls, step_s: int) -> None:
    """Deadlines, drains and settlement do not look at the wall: nothing ends early, late, or twice."""

    async def story(on: Bench) -> None:
        requests = [
            asyncio.create_task(on.ask("[[fault:late-head delay_ms=400]] hi")),
            asyncio.create_task(on.ask("[[fault:slow delay_ms=50]] hi", stream=True)),
            asyncio.create_task(on.ask("[[fault:hang]]", stream=True)),
        ]
        await asyncio.sleep(0.2)
        on.clock.step_s = step_s
        statuses = [(await request)[0] for request in requests]
        assert statuses == [200, 200, 504]
        assert (await on.ask("afterwards"))[0] == 200

    rows = run(story, tmp_path, fresh_store)
    assert len(rows) == 4
    for row in rows:
        sane(row)
    assert sorted(row["outcome"] for row in rows) == ["failed", "served", "served", "served"]
    hung = next(row for row in rows if row["outcome"] == "failed")
    assert 1.4 * NS < hung["duration_ns"] < 3 * NS, "the first-token deadline of 1.5 s, wall or no wall"


def test_tokens_are_judged_by_the_wall(tmp_path: Path, fresh_store: StoreUrls) -> None:
    async def story(on: Bench) -> None:
        token = on.token()
        assert (await on.ask("hi", token=token))[0] == 200
        for step_s, code in ((HOUR_S, b"identify.expired"), (-HOUR_S, b"identify.not_yet_valid")):
            on.clock.step_s = step_s
            status, _, body = await on.ask("hi", token=token)
            assert (status, code in body) == (401, True), body
        on.clock.step_s = 0
        assert (await on.ask("hi", token=token))[0] == 200, "it was not forgotten that the token is good"

    assert len(run(story, tmp_path, fresh_store)) == 2


def test_ids_stay_unique_while_the_wall_stands_still(tmp_path: Path, fresh_store: StoreUrls) -> None:
    """A clock that is set back again and again gives the same milliseconds many times."""

    async def story(on: Bench) -> None:
        begun = time.time_ns()
        on.clock.unix_ns = lambda: begun  # type: ignore[method-assign]
        answers = await asyncio.gather(*(on.ask("hi") for _ in range(60)))
        assert {status for status, _, _ in answers} == {200}
        assert len({request_id for _, request_id, _ in answers}) == 60

    rows = run(story, tmp_path, fresh_store)
    assert len({row["id"] for row in rows}) == 60
    assert len({row["arrived_unix_ns"] for row in rows}) == 1

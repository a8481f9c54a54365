"""Clients that leave at any moment, or do not read: one row each, at most one charge, nothing held, nothing left open."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.conftest import StoreUrls
from tests.journey import wire
from tests.journey.deployment import Deployment, deployment, managed, said

from shipworthy.kit.scripted_config import Saying, ScriptedConfig
from shipworthy.kit.scripted_log import Ended

LEAVES = 200
AT_ONCE = 12
SEED = 20_260_401
LONG, LONGER = "word " * 20_000, "word " * 200_000
RESET = struct.pack("ii", 1, 0)

LONG_MODEL = """
models:
  lengthy: {provider: first, upstream: up-lengthy, abilities: [chat], context_tokens_max: 8000000,
    output_tokens_max: 400000, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 4}}"""
LONG_USE_CASE = """
use_cases:
  lengthy: {job: Answer., done: {right: a, wrong: b, refuse: c}, owner: support, risk: minimal, data_class: internal,
    mode: enforce, tokens: {input_max: 10000, output_max: 300000}, route: {strategy: first, models: [lengthy]},
    on_disconnect: {drain_seconds: 0}}"""


def with_lengthy(text: str) -> str:
    return text.replace("\nmodels:", LONG_MODEL).replace("\nuse_cases:", LONG_USE_CASE)


@pytest.fixture(scope="module")
def server(module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("leaving")
    store, environ = managed(module_store.url, module_store.migrate_url)
    first = ScriptedConfig(
        allow_markers=True, answers=(Saying(contains="at length", say=LONG), Saying(contains="for ever", say=LONGER))
    )
    with deployment(folder, store, environ=environ, first=first, edit=with_lengthy) as running:
        with (
            running.client() as client,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):  # the store's pools are as large as they get
            warm = said("[[fault:late-head delay_ms=50]]")
            assert {r.status_code for r in pool.map(lambda _: client.post(wire.CHAT, json=warm), range(60))} == {200}
        yield running


@dataclass(frozen=True)
class Leave:
    """When a client goes, and how."""

    number: int
    use_case: str
    stream: bool
    moment: str  # head | body | waiting | midway | half-close
    share: float
    reset: bool

    @property
    def session(self) -> str:
        return f"leave-{self.number}"

    @property
    def sent_head(self) -> bool:
        return self.moment != "head"


def leaves() -> list[Leave]:
    draw = random.Random(SEED)
    moments = ("head", "body", "waiting", "midway", "midway", "half-close")
    return [
        Leave(
            n,
            draw.choice(("chat", "pair")),
            draw.random() < 0.8,
            draw.choice(moments),
            draw.random(),
            draw.random() < 0.5,
        )
        for n in range(LEAVES)
    ]


def go(server: Deployment, token: str, leave: Leave) -> None:
    """Connects, sends what the leave says, and is gone."""
    fault = f"slow delay_ms={int(5 + 30 * leave.share)}" if leave.moment != "waiting" else "late-head delay_ms=300"
    body = said(f"[[fault:{fault}]] a few words to say again", leave.use_case, stream=leave.stream)
    whole = wire.request(token, body, f"x-shipworthy-session: {leave.session}")
    head_bytes = whole.index(b"\r\n\r\n") + 4
    with wire.connect(server.base) as sock:
        if leave.moment == "head":
            sock.sendall(whole[: int(leave.share * (head_bytes - 1))])
            time.sleep(0.01)
        elif leave.moment == "body":
            sock.sendall(whole[: head_bytes + int(leave.share * (len(whole) - head_bytes - 1))])
            time.sleep(0.15)  # so that the head is not lost with the connection
        else:
            sock.sendall(whole)
            _stay(sock, leave)
        if leave.reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def _stay(sock: socket.socket, leave: Leave) -> None:
    if leave.moment == "half-close":
        time.sleep(0.1 * leave.share)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536):
            pass
    elif leave.moment == "waiting":
        time.sleep(0.1 + 0.2 * leave.share)
    else:
        wanted = int(leave.share * 2_500) + 1
        while wanted > 0 and (piece := sock.recv(4_096)):
            wanted -= len(piece)
            if not leave.stream:
                break


def open_files(server: Deployment) -> int:
    (worker,) = server.processes("worker")
    return len(list(Path(f"/proc/{worker}/fd").iterdir()))


def test_two_hundred_clients_leave_at_any_moment(server: Deployment) -> None:
    token = server.token()
    files_before = open_files(server)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda leave: go(server, token, leave), leaves()))
    expected = [leave.session for leave in leaves() if leave.sent_head]
    rows = server.await_rows(len(expected), "session like 'leave-%%'", seconds=15)
    assert sorted(row["session"] for row in rows) == sorted(expected), "one row for each whose head came, none else"
    server.await_no_holds()
    by_session = {row["session"]: row for row in rows}
    for leave in leaves():
        if not leave.sent_head:
            continue
        row = by_session[leave.session]
        assert row["outcome"] in (("abandoned",) if leave.moment == "body" else ("abandoned", "served")), (leave, row)
        assert row["charged_nano"] == sum(line["amount_nano"] for line in row["charge_lines"])
        assert row["charged_nano"] <= row["held_nano"]
        assert {line["attempt"] for line in row["charge_lines"]} <= {0}
        if leave.moment == "body":
            assert (row["refusal_code"], row["charged_nano"], row["attempts"]) == ("decode.client_left", 0, [])
        elif row["attempts"] and row["attempts"][0].get("sent", True):
            assert row["charged_nano"] > 0, "what a provider was asked is paid for"
    assert {row["outcome"] for row in rows} == {"abandoned", "served"}, "the seed covers both"
    _await_quiet(server, files_before)


def _await_quiet(server: Deployment, files_before: int) -> None:
    """No answer still being written upstream, no socket or file more than before (kept connections close after 4 s)."""
    deadline = time.monotonic() + 12
    while time.monotonic() < deadline:
        open_answers = [entry for entry in server.providers.first.log if entry.ended is Ended.OPEN]
        if not open_answers and open_files(server) <= files_before + 2:
            break
        time.sleep(0.1)
    assert not open_answers
    assert open_files(server) <= files_before + 2


def test_a_client_that_left_is_drained_for_its_usage(server: Deployment) -> None:
    """``chat`` drains for a second: what the provider reports in that time is the charge. ``pair`` does not drain at all."""
    token = server.token()
    for use_case, basis, flag in (("chat", "reported", "drained"), ("pair", "counted", "usage_counted")):
        body = said("[[fault:slow delay_ms=30]] five words to say again", use_case, stream=True)
        with wire.connect(server.base) as sock:
            sock.sendall(wire.request(token, body, f"x-shipworthy-session: drained-{use_case}"))
            sock.recv(4_096)
        (row,) = server.await_rows(1, "session = %s", f"drained-{use_case}")
        assert row["outcome"] == "abandoned"
        assert {line["basis"] for line in row["charge_lines"]} == {basis}, row["flags"]
        assert {flag, "client_left"} <= set(row["flags"])


def test_a_client_that_does_not_read_stops_its_provider(server: Deployment) -> None:
    """Back-pressure reaches the provider: memory is bounded by buffers, not by the answer. Leaving ends it."""
    (worker,) = server.processes("worker")
    before_kb = resident_kb(worker)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    host, port = server.base.removeprefix("http://").split(":")
    sock.connect((host, int(port)))
    with sock:
        body = said("for ever", "lengthy", stream=True)
        sock.sendall(wire.request(server.token(), body, "x-shipworthy-session: unread"))
        said_tokens = _plateau(server)
        assert said_tokens < 150_000, "the provider was stopped long before its 200,000 words were said"
        assert resident_kb(worker) - before_kb < 40_000
    (row,) = server.await_rows(1, "session = 'unread'")
    assert row["outcome"] == "abandoned"
    server.await_no_holds()


def _plateau(server: Deployment) -> int:
    """What the provider has said once it says no more."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 1.0:
        time.sleep(0.05)
        said_now = server.providers.first.log[-1].billed_output
        if said_now != last:
            last, since = said_now, time.monotonic()
    return last


def resident_kb(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(process)


def test_a_whole_long_answer_arrives(server: Deployment) -> None:
    with (
        server.client() as client,
        client.stream("POST", wire.CHAT, json=said("at length", "lengthy", stream=True)) as answer,
    ):
        size = sum(len(piece) for piece in answer.iter_raw())
    row = server.row(answer.headers["x-shipworthy-request-id"])
    assert row["outcome"] == "served", row["refusal_detail"]
    assert row["usage"]["output"] == 20_001
    assert row["reply_bytes"] < size


def test_requests_sent_ahead_are_answered_in_order(server: Deployment) -> None:
    token = server.token()
    with wire.connect(server.base) as sock:
        sock.sendall(
            b"".join(wire.request(token, said(f"number {n}"), f"x-shipworthy-session: ahead-{n}") for n in range(5))
        )
        left = bytearray()
        answers = [wire.read_answer(sock, left).json()["choices"][0]["message"]["content"] for _ in range(5)]
    assert [answer.rpartition(" ")[2] for answer in answers] == ["0", "1", "2", "3", "4"]
    assert len(server.await_rows(5, "session like 'ahead-%%'")) == 5


def test_leaving_with_requests_sent_ahead_ends_the_one_that_runs(server: Deployment) -> None:
    """The rest was never begun: nothing is asked or paid for it."""
    token = server.token()
    slow = said("[[fault:late-head delay_ms=1200]]", "pair")
    with wire.connect(server.base) as sock:
        sock.sendall(
            b"".join(wire.request(token, slow, f"x-shipworthy-session: queue-{n}") for n in range(4)) + b"POST /v1/chat"
        )
        time.sleep(0.3)
    rows = server.await_rows(1, "session like 'queue-%%'", seconds=1.0)
    assert [(row["session"], row["outcome"]) for row in rows] == [("queue-0", "abandoned")]
    time.sleep(0.3)
    assert len(server.rows("session like 'queue-%%'")) == 1


def test_the_server_is_well_afterwards(server: Deployment) -> None:
    server.await_no_holds()
    for counter in server.sql("select * from counter where tenant = 'acme'"):
        rows = server.rows("tenant = 'acme'")
        assert (counter["held_nano"], counter["charged_nano"]) == (0, sum(row["charged_nano"] for row in rows))
    assert server.sql("select sum(in_flight) as n from pace")[0]["n"] == 0
    with server.client() as client:
        assert client.get("/readyz").json()["status"] == "ready"
        assert client.post(wire.CHAT, json=said("hi")).status_code == 200
    assert [line for line in server.log.splitlines() if '"level":"error"' in line or not line.startswith("{")] == []

"""Clients that are too slow, at anything: each bound ends them, and meanwhile nobody else waits.

The server's bounds of time are changed to about a second (``brief``); nothing else of it is.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import StoreUrls
from tests.journey import wire
from tests.journey.brief import brief
from tests.journey.deployment import Deployment, deployment, managed, said
from tests.journey.test_leaving import LONGER, with_lengthy

from shipworthy.kit.scripted_config import Saying, ScriptedConfig


@pytest.fixture(scope="module")
def server(module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("slow")
    store, environ = managed(module_store.url, module_store.migrate_url)
    first = ScriptedConfig(allow_markers=True, answers=(Saying(contains="for ever", say=LONGER),))
    with deployment(folder, store, environ=environ | brief(folder), first=first, edit=with_lengthy) as running:
        yield running


def drip(sock: socket.socket, content: bytes, pause_s: float, stop: threading.Event) -> None:
    """A byte at a time until told to stop, or until nobody listens."""
    for place in range(len(content)):
        if stop.wait(pause_s):
            return
        try:
            sock.sendall(content[place : place + 1])
        except OSError:
            return


def test_a_head_that_drips_is_cut_off_and_others_are_served_meanwhile(server: Deployment) -> None:
    whole = wire.request(server.token(), said("hi"))
    stop = threading.Event()
    socks = [wire.connect(server.base) for _ in range(30)]
    drips = [threading.Thread(target=drip, args=(sock, whole, 0.1, stop)) for sock in socks]
    for thread in drips:
        thread.start()
    try:
        slowest_s = 0.0
        with server.client() as client:
            for _ in range(20):
                began = time.monotonic()
                assert client.post(wire.CHAT, json=said("hi")).status_code == 200
                slowest_s = max(slowest_s, time.monotonic() - began)
        assert slowest_s < 1.0
        answer = wire.read_answer(socks[0])
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert all(wire.closed(sock, 4.0) for sock in socks)
    finally:
        stop.set()
        for thread in drips:
            thread.join()
        for sock in socks:
            sock.close()


def test_connections_that_say_nothing_are_closed(server: Deployment) -> None:
    socks = [wire.connect(server.base) for _ in range(100)]
    try:
        began = time.monotonic()
        assert all(wire.closed(sock, 4.0) for sock in socks)
        assert time.monotonic() - began < 4.0
    finally:
        for sock in socks:
            sock.close()


def test_a_head_without_end_is_refused(server: Deployment) -> None:
    with wire.connect(server.base) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n")
        try:
            for n in range(200):
                sock.sendall(b"x-%d: %s\r\n" % (n, b"y" * 1_000))
                time.sleep(0.001)
            answer = wire.read_answer(sock)
        except OSError:
            return  # closed while we still sent: the answer was lost, the bound was not
        assert answer.status == 431


def test_a_body_that_drips_is_refused_in_time(server: Deployment) -> None:
    content = wire.request(server.token(), said("hello " * 500), "x-shipworthy-session: dripped")
    split = content.index(b"\r\n\r\n") + 10
    stop = threading.Event()
    with wire.connect(server.base) as sock:
        sock.sendall(content[:split])
        thread = threading.Thread(target=drip, args=(sock, content[split:], 0.05, stop))
        thread.start()
        answer = wire.read_answer(sock)
        assert (answer.status, answer.json()["error"]["code"]) == (408, "decode.timeout")
        assert wire.closed(sock, 4.0), "what drips on after its refusal is cut off too"
        stop.set()
        thread.join()
    (row,) = server.await_rows(1, "session = 'dripped'")
    assert (row["outcome"], row["charged_nano"]) == ("refused", 0)


def test_a_refused_body_that_goes_on_is_cut_off(server: Deployment) -> None:
    """The answer comes at once, and what is still on its way is read for a while, so that the client hears the answer."""
    with wire.connect(server.base) as sock:
        sock.sendall(wire.head("nonsense", "content-type: application/json", "transfer-encoding: chunked"))
        assert wire.read_answer(sock).status == 401
        began = time.monotonic()
        sock.sendall(b"100000\r\n")
        drip(sock, b" " * 1_000, 0.01, threading.Event())
        assert 0.5 < time.monotonic() - began < 4.0


def test_an_answer_that_nobody_reads_is_given_up(server: Deployment) -> None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    host, port = server.base.removeprefix("http://").split(":")
    sock.connect((host, int(port)))
    with sock:
        body = said("for ever", "lengthy", stream=True)
        sock.sendall(wire.request(server.token(), body, "x-shipworthy-session: given-up"))
        (row,) = server.await_rows(1, "session = 'given-up'", seconds=15)
    assert row["outcome"] == "abandoned"
    assert row["charged_nano"] > 0
    server.await_no_holds()


def test_waiting_for_the_first_token_is_heard(server: Deployment) -> None:
    """Comments keep proxies between us from giving up; the status is decided then, so a failure is an event."""
    with server.client() as client:
        slow = said("[[fault:late-head delay_ms=1000]] hi", stream=True)
        with client.stream("POST", wire.CHAT, json=slow) as response:
            body = b"".join(response.iter_raw())
        assert response.status_code == 200
        assert body.count(b": waiting for the first token\n\n") >= 2
        assert body.index(b": waiting") == 0
        assert b"scripted" in body
        assert body.endswith(b"data: [DONE]\n\n")
        row = server.row(response.headers["x-shipworthy-request-id"])
        assert row["outcome"] == "served"
        with client.stream("POST", wire.CHAT, json=said("[[fault:hang]]", stream=True)) as response:
            body = b"".join(response.iter_raw())
        assert response.status_code == 200
        assert b'"code":"call.timeout"' in body.rpartition(b"data: ")[2]
        assert server.row(response.headers["x-shipworthy-request-id"])["outcome"] == "failed"


def test_what_stands_behind_a_body_is_no_header(server: Deployment) -> None:
    """A credential in a trailer passed whoever checked the headers in front of us: it is not looked at."""
    body = b'{"model":"chat","messages":[{"role":"user","content":"hi"}]}'
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        "host: x",
        "content-type: application/json",
        "transfer-encoding: chunked",
    )
    top = "\r\n".join(lines) + "\r\n\r\n"
    trailer = f"0\r\nauthorization: Bearer {server.token()}\r\n\r\n".encode()
    with wire.connect(server.base) as sock:
        sock.sendall(top.encode() + b"%x\r\n%b\r\n" % (len(body), body) + trailer)
        answer = wire.read_answer(sock)
    assert (answer.status, answer.json()["error"]["code"]) == (401, "identify.missing_credential")


def test_a_head_begun_early_waits_for_its_turn(server: Deployment) -> None:
    """Half a request behind one that is answered does not disturb the answer."""
    token = server.token()
    second = wire.request(token, said("second"))
    with wire.connect(server.base) as sock:
        left = bytearray()
        sock.sendall(wire.request(token, said("[[fault:late-head delay_ms=2000]] first")) + second[:40])
        assert wire.read_answer(sock, left).status == 200
        sock.sendall(second[40:])
        assert wire.read_answer(sock, left).status == 200


def test_the_server_is_well_afterwards(server: Deployment) -> None:
    server.await_no_holds()
    with server.client() as client:
        assert client.get("/readyz").json()["status"] == "ready"
    assert [line for line in server.log.splitlines() if '"level":"error"' in line or not line.startswith("{")] == []

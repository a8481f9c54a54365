"""Idempotency-Key: a repeat gets the same bytes, unpaid and unasked; anything else under the key is refused."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest
from tests.journey import wire
from tests.journey.deployment import Deployment, said

CHAT = "/v1/chat/completions"


def ask(server: Deployment, key: str, body: object, token: str | None = None) -> httpx.Response:
    with server.client(token, {"idempotency-key": key}) as client:
        return client.post(CHAT, json=body)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_repeat_gets_the_same_bytes_for_nothing(server: Deployment, stream: bool) -> None:
    key, body = f"same-{stream}", said("say it again, ü", stream=stream, n=2)
    first = ask(server, key, body)
    asked = server.providers.first.log.received
    for _ in range(2):
        again = ask(server, key, body)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["content-type"] == first.headers["content-type"]
        assert again.headers["x-shipworthy-source"] == "replay"
        assert again.headers["x-shipworthy-replay-of"] == first.headers["x-shipworthy-request-id"]
        assert again.headers["x-shipworthy-request-id"] != first.headers["x-shipworthy-request-id"]
        row = server.row(again.headers["x-shipworthy-request-id"])
        assert (row["outcome"], row["charged_nano"], row["attempts"]) == ("served", 0, [])
    assert server.providers.first.log.received == asked, "no provider was asked again"
    assert server.row(first.headers["x-shipworthy-request-id"])["charged_nano"] > 0


def test_another_body_is_refused(server: Deployment) -> None:
    assert ask(server, "taken", said("one")).status_code == 200
    other = ask(server, "taken", said("two"))
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency.other_body")
    assert server.row(other.headers["x-shipworthy-request-id"])["charged_nano"] == 0
    assert ask(server, "taken", said("one")).headers["x-shipworthy-source"] == "replay"


def test_one_that_still_runs_is_refused(server: Deployment) -> None:
    body = said("[[fault:late-head delay_ms=1000]] slow")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, server, "running", body)
        time.sleep(0.4)
        early = ask(server, "running", body)
        assert (early.status_code, early.json()["error"]["code"]) == (409, "idempotency.in_flight")
        assert int(early.headers["retry-after"]) >= 1
        served = first.result(10)
    assert ask(server, "running", body).content == served.content


def test_of_many_at_once_one_runs(server: Deployment) -> None:
    body = said("[[fault:late-head delay_ms=300]] at once")
    asked = server.providers.first.log.received
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(server, "at-once", body), range(8)))
    assert sorted({answer.status_code for answer in answers}) == [200, 409]
    assert server.providers.first.log.received == asked + 1
    charged = [server.row(answer.headers["x-shipworthy-request-id"])["charged_nano"] for answer in answers]
    assert sum(1 for amount in charged if amount) == 1


def test_a_key_is_its_principals_own(server: Deployment) -> None:
    body = said("mine")
    ada = ask(server, "own", body)
    bob = ask(server, "own", body, server.token(subject="bob"))
    assert (ada.status_code, bob.status_code) == (200, 200)
    assert ada.headers["x-shipworthy-source"] == bob.headers["x-shipworthy-source"] == "model"


def test_what_failed_runs_afresh(server: Deployment) -> None:
    """Only answers are kept: a refusal, a failure and a broken stream free the key, and the next try is the first."""
    for name, body, status in (
        ("failed", said("[[fault:500]]"), 502),
        ("cut", said("[[fault:half-stream]] some words to say", stream=True), 200),
        ("rejected", said("[[fault:400]]"), 400),
    ):
        asked = server.providers.first.log.received
        assert [ask(server, name, body).status_code for _ in range(2)] == [status, status]
        assert server.providers.first.log.received == asked + 2
    poor = server.token("poor")
    codes = [ask(server, "poor", said("hi"), poor).json()["error"]["code"] for _ in range(2)]
    assert codes == ["reserve.budget_exhausted"] * 2


def test_whoever_lost_the_answer_can_still_get_it(server: Deployment) -> None:
    """The client timed out, the provider's answer was drained and paid: the repeat is what the key is for."""
    body, token = said("[[fault:late-head delay_ms=500]] lost"), server.token()
    with wire.connect(server.base) as sock:
        sock.sendall(wire.request(token, body, "idempotency-key: lost", "x-shipworthy-session: lost"))
        time.sleep(0.2)
    (row,) = server.await_rows(1, "session = 'lost'")
    assert (row["outcome"], "drained" in row["flags"]) == ("abandoned", True)
    asked = server.providers.first.log.received
    with server.client(token, {"idempotency-key": "lost", "content-type": "application/json"}) as client:
        again = client.post(CHAT, content=wire.request(token, body).partition(b"\r\n\r\n")[2])
    assert (again.status_code, again.headers["x-shipworthy-source"]) == (200, "replay")
    assert server.providers.first.log.received == asked


def test_nothing_stays_held(server: Deployment) -> None:
    server.await_no_holds()
    rows = server.rows("tenant = 'acme'")
    for counter in server.sql("select * from counter where tenant = 'acme'"):
        assert counter["charged_nano"] == sum(row["charged_nano"] for row in rows)

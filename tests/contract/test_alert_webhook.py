"""The webhook as a receiver meets it: one signed POST, bounded in time and bytes, and never led astray by the answer."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from email.utils import formatdate
from uuid import UUID, uuid4

import pytest
from tests.contract.receiver import Answer, Receiver

from shipworthy.adapters.alerts.webhook import RETRY_AFTER_S_MAX, WebhookPoster
from shipworthy.kit.webhook import DELIVERY_HEADER, SIGNATURE_HEADER, BadSignature, sign, verify
from shipworthy.model.alert import Posted
from shipworthy.model.op import SystemClock

SECRET = "a secret of more than sixteen bytes"
BODY = b'{"type":"budget.alert"}'
HUGE = b"x" * 8_000_000


def post(url: str, delivery: UUID | None = None, *, total_s: float = 2.0) -> Posted:
    poster = WebhookPoster(url, SECRET, SystemClock(), total_s=total_s)
    return asyncio.run(poster.post(delivery or uuid4(), BODY))


def test_a_delivery_is_signed_and_named() -> None:
    """Whoever holds the secret can check who said it, what, when; and which delivery it is."""
    delivery = uuid4()
    with Receiver() as receiver:
        assert post(receiver.url, delivery) == Posted(200)
    (got,) = receiver.posts
    assert got.body == BODY
    assert got.headers["content-type"] == "application/json"
    assert UUID(got.headers[DELIVERY_HEADER]) == delivery
    verify(SECRET, got.headers[SIGNATURE_HEADER], got.body, time.time())
    with pytest.raises(BadSignature, match="another secret"):
        verify("another secret, as long", got.headers[SIGNATURE_HEADER], got.body, time.time())


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 408, 410, 425, 429, 500, 503])
def test_every_status_is_reported_as_it_is(status: int) -> None:
    answer = Answer(status, body=b"" if status == 204 else b"no")
    with Receiver(answer) as receiver:
        posted = post(receiver.url)
    assert posted.status == status
    assert len(receiver.posts) == 1


def test_a_redirect_is_not_followed() -> None:
    """A signed alert goes where the manifest says, nowhere else."""
    with Receiver() as elsewhere, Receiver(Answer(307, {"location": elsewhere.url})) as receiver:
        assert post(receiver.url) == Posted(307, "a redirect, which is not followed")
    assert elsewhere.posts == []


def test_a_receiver_that_hangs_is_left() -> None:
    with Receiver(Answer(silent_s=30)) as receiver:
        began = time.monotonic()
        posted = post(receiver.url, total_s=0.5)
        assert time.monotonic() - began < 2
    assert posted == Posted(0, "no answer in time")


def test_a_receiver_that_closes_or_talks_nonsense_gave_no_answer() -> None:
    garbled = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense"
    for raw in (b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, garbled):
        with Receiver(Answer(raw=raw)) as receiver:
            assert post(receiver.url).status == 0


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert post(f"http://127.0.0.1:{bound.getsockname()[1]}/") == Posted(0, "no connection")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=HUGE),
        Answer(body=b"short", headers={"content-length": "5000"}),
        Answer(body=b"not gzip", headers={"content-encoding": "gzip"}),
    ],
    ids=["huge", "half", "wrongly encoded"],
)
def test_the_status_decides_whatever_the_body_is(answer: Answer) -> None:
    """An answer's body is bounded, and none of it can make a delivery fail that was taken."""
    with Receiver(answer) as receiver:
        began = time.monotonic()
        assert post(receiver.url).status == 200
        assert time.monotonic() - began < 2


def test_a_body_that_never_ends_is_cut() -> None:
    """At 64 KiB or at its time, whichever comes first; the delivery stands."""
    with Receiver(Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + b"x" * 100_000)) as receiver:
        assert post(receiver.url).status == 200


def test_retry_after_in_seconds_or_as_a_date_within_an_hour() -> None:
    dates = {"7": 7, "0": 0, "999999999": RETRY_AFTER_S_MAX, "soon": 0, "-5": 0, "": 0, "9" * 5_000: RETRY_AFTER_S_MAX}
    with Receiver(*(Answer(429, {"retry-after": said}) for said in dates)) as receiver:
        assert [post(receiver.url).retry_after_s for _ in dates] == list(dates.values())
    with Receiver(Answer(429, {"retry-after": formatdate(time.time() + 60, usegmt=True)})) as receiver:
        assert 50 < post(receiver.url).retry_after_s <= 60


def test_neither_address_nor_secret_is_ever_said() -> None:
    """An address that may post is a secret: no reason, no repr holds it, whatever goes wrong."""
    urls = [
        "http://127.0.0.1:1/hush-token",
        "http://hush-token.invalid/",
        "https://127.0.0.1:1/hush-token",
        "hush-token",
    ]
    for url in urls:
        posted = post(url, total_s=5)
        assert posted.status == 0
        assert posted.reason
        assert "hush" not in posted.reason
    assert "hush" not in repr(WebhookPoster(urls[0], "hush" * 5, SystemClock()))


def test_signatures_of_others_of_then_and_of_other_words_are_refused() -> None:
    """What a receiver must not take: changed, unsigned, replayed, from the future, signed twice over for luck."""
    header = sign(SECRET, BODY, 1_000_000)
    verify(SECRET, header, BODY, 1_000_299)
    verify(SECRET, f"{header},v1={'0' * 64},v2=new", BODY, 1_000_000)
    other = header.replace("t=1000000", "t=1000001")
    for wrong in (other, "", "t=1000000", header.partition(",")[2], f"{header},t=1000000", "v1=,t=", "x" * 5_000):
        with pytest.raises(BadSignature):
            verify(SECRET, wrong, BODY, 1_000_000)
    for body, now in ((BODY + b" ", 1_000_000), (BODY, 1_000_301), (BODY, 999_699)):
        with pytest.raises(BadSignature):
            verify(SECRET, header, body, now)
    assert json.loads(BODY)

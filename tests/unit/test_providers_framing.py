"""One answer out of bytes: however they are cut, the same answer comes out, or the same refusal; never beyond a bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipworthy.adapters.providers.framing import (
    FRAMING_BYTES_MAX,
    HEADER_LINE_BYTES_MAX,
    HEADERS_MAX,
    INTERIM_MAX,
    Garbled,
    Incoming,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"

# bytes → status, body, may the connection carry another request
WHOLE: dict[str, tuple[bytes, int, bytes, bool]] = {
    "length": (OK + b"content-length: 2\r\n\r\nhi", 200, b"hi", True),
    "no body": (OK + b"content-length: 0\r\n\r\n", 200, b"", True),
    "chunks": (CHUNKED + b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", 200, b"hi", True),
    "chunk extension": (CHUNKED + b'2;a=b;c="d"\r\nhi\r\n0;e\r\n\r\n', 200, b"hi", True),
    "trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nx-a: b\r\nx-c: d\r\n\r\n", 200, b"hi", True),
    "coding in capitals": (OK + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200, b"hi", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 304, b"", True),
    "no reason": (b"HTTP/1.1 429\r\ncontent-length: 2\r\n\r\nno", 429, b"no", True),
    "close": (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nhi", 200, b"hi", False),
    "1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", 200, b"hi", False),
    "1.0 kept": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi", 200, b"hi", True),
    "interim": (b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\nHTTP/1.1 103 Hints\r\nlink: z\r\n\r\n" + OK
                + b"content-length: 2\r\n\r\nhi", 200, b"hi", True),
    "offers another protocol": (OK + b"upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nhi",
                                200, b"hi", True),
}  # fmt: skip

GARBLED: dict[str, bytes] = {
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi",
    "one length twice": OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nhi",
    "length list": OK + b"content-length: 2, 2\r\n\r\nhi",
    "length with a sign": OK + b"content-length: +2\r\n\r\nhi",
    "negative length": OK + b"content-length: -2\r\n\r\nhi",
    "empty length": OK + b"content-length:\r\n\r\nhi",
    "length overflow": OK + b"content-length: 99999999999999999999\r\n\r\nhi",
    "length and chunks": OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
    "other coding": OK + b"transfer-encoding: gzip\r\n\r\nabc",
    "coding before chunks": OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": OK + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "coding twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "nearly chunks": OK + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "blank before the colon": OK + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded line": OK + b"x: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    "folded coding": OK + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare line feed": OK + b"x: a\ncontent-length: 0\r\n\r\n",
    "bare line feed in the status": b"HTTP/1.1 200 OK\ncontent-length: 0\r\n\r\n",
    "bare line feed at the end": OK + b"content-length: 0\r\n\n",
    "bare carriage return": OK + b"x: a\rcontent-length: 0\r\n\r\n",
    "NUL": OK + b"x: a\x00b\r\ncontent-length: 0\r\n\r\n",
    "no colon": OK + b"xyz\r\ncontent-length: 0\r\n\r\n",
    "no name": OK + b": a\r\ncontent-length: 0\r\n\r\n",
    "not HTTP": b"not HTTP at all\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
    "status of no digits": b"HTTP/1.1 abc\r\n\r\n",
    "status 99": b"HTTP/1.1 099 x\r\ncontent-length: 0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc",
    "another protocol, unnamed": b"HTTP/1.1 101 Switching\r\n\r\nabc",
    "chunk of no digits": CHUNKED + b"xyz\r\nhi\r\n0\r\n\r\n",
    "negative chunk": CHUNKED + b"-2\r\nhi\r\n0\r\n\r\n",
    "chunk overflow": CHUNKED + b"fffffffffffffffff\r\nhi",
    "chunk too short": CHUNKED + b"2\r\nhixx\r\n0\r\n\r\n",
    "chunk with line feeds": CHUNKED + b"2\nhi\n0\n\n",
    "length as a trailer": CHUNKED + b"2\r\nhi\r\n0\r\ncontent-length: 2\r\n\r\n",
    "long header": OK + b"x: " + b"a" * HEADER_LINE_BYTES_MAX + b"\r\n\r\n",
    "many headers": OK + b"x: a\r\n" * (HEADERS_MAX + 1) + b"\r\n",
    "many trailers": CHUNKED + b"0\r\n" + b"x: a\r\n" * HEADERS_MAX + b"\r\n",
    "long trailer": CHUNKED + b"0\r\nx: " + b"a" * HEADER_LINE_BYTES_MAX + b"\r\n\r\n",
    "many interim": b"HTTP/1.1 102 Wait\r\n\r\n" * (INTERIM_MAX + 1) + OK + b"content-length: 0\r\n\r\n",
}


def fed(data: bytes, cuts: list[int]) -> Incoming:
    """An answer, fed in pieces."""
    incoming = Incoming()
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if end > start and not incoming.whole:
            incoming.feed(data[start:end])
    return incoming


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("step", [1, 2, 7, 1_000_000])
def test_an_answer_is_the_same_however_it_is_cut(name: str, step: int) -> None:
    data, status, body, reusable = WHOLE[name]
    incoming = fed(data, list(range(step, len(data), step)))
    assert (incoming.status, incoming.take(), incoming.whole, incoming.reusable) == (status, body, True, reusable)
    assert incoming.take() == b""


@pytest.mark.parametrize("name", GARBLED)
@pytest.mark.parametrize("step", [1, 3, 1_000_000])
def test_what_is_no_answer_is_refused_however_it_is_cut(name: str, step: int) -> None:
    """Never waited for, never half believed: two readers of such bytes may see two different answers in them."""
    data = GARBLED[name]
    with pytest.raises(Garbled):
        fed(data, list(range(step, len(data), step)))


@given(st.data())
def test_any_bytes_in_any_cut_end_in_an_answer_or_a_refusal(data: st.DataObject) -> None:
    """No other exception, whatever a provider says after a sound beginning."""
    start = data.draw(st.sampled_from([b"", OK, CHUNKED, OK + b"content-length: 5\r\n\r\n"]))
    said = start + data.draw(st.binary(max_size=80))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=5)))
    try:
        incoming = fed(said, cuts)
    except Garbled:
        return
    assert len(incoming.take()) <= len(said)


@pytest.mark.parametrize("surplus", [b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nXX", b"\x00"])
def test_bytes_beyond_the_end_cost_the_connection_only(surplus: bytes) -> None:
    """They are in no answer: not in this one, and there is no next one on this connection."""
    incoming = fed(OK + b"content-length: 2\r\n\r\nhi" + surplus, [])
    assert (incoming.take(), incoming.whole, incoming.reusable) == (b"hi", True, False)


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    incoming = fed(OK + b"\r\nhi", [])
    assert (incoming.take(), incoming.whole) == (b"hi", False)
    assert incoming.end()
    assert not incoming.reusable


@pytest.mark.parametrize("data", [b"", OK, CHUNKED + b"2\r\nhi", OK + b"content-length: 3\r\n\r\nhi"])
def test_an_answer_with_a_length_does_not(data: bytes) -> None:
    assert not fed(data, []).end()


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (OK, b"x"),
        (OK + b"a: ", b"b"),
        (b"HTTP/1.1 200 ", b"K"),
        (CHUNKED, b"0"),
        (CHUNKED + b"2;", b"x"),
        (CHUNKED + b"2\r\nhi\r\n0\r\nx: ", b"y"),
        (b"", b"\r\n"),
    ],
    ids=["name", "value", "reason", "chunk size", "chunk extension", "trailer", "blank lines"],
)
def test_framing_without_end_is_bounded(start: bytes, more: bytes) -> None:
    """Whatever is not body is held or skipped up to a bound, and then refused."""
    incoming = Incoming()
    incoming.feed(start)
    pieces = 0
    try:
        while pieces < 2 * FRAMING_BYTES_MAX // 512:
            incoming.feed(more * 512)
            pieces += 1
    except Garbled:
        assert pieces <= FRAMING_BYTES_MAX // 512
    else:
        pytest.fail("it is fed for ever")


def test_headers_are_found_by_name_and_the_first_counts() -> None:
    incoming = fed(OK + b"X-A: 1\r\nx-a: 2\r\ncontent-length: 0\r\n\r\n", [])
    assert incoming.headers[b"x-a"] == b"1"


def test_trailers_are_no_headers() -> None:
    incoming = fed(CHUNKED + b"0\r\ncontent-type: text/html\r\n\r\n", [])
    assert incoming.whole
    assert b"content-type" not in incoming.headers

"""Requests that two readers could read differently: refused with a status, the connection closed, nothing after them read.

Whoever stands in front of the data plane (a proxy, a web application firewall) must see exactly the requests that it sees.
"""

from __future__ import annotations

import pytest
from tests.journey.edge import Client, Echo, play

from shipworthy.http.wire import bounds

pytestmark = pytest.mark.usefixtures("each_wire")

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", b"host: x", *lines)) + b"\r\n\r\n" + body


def get(target: bytes = b"/", version: bytes = b"HTTP/1.1", *lines: bytes) -> bytes:
    return b"\r\n".join((b"GET " + target + b" " + version, *(lines or (b"host: x",)))) + b"\r\n\r\n"


CHUNKED = b"transfer-encoding: chunked"
HEADS = {
    "length and coding": post(b"content-length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "coding and length": post(CHUNKED, b"content-length: 5", body=b"0\r\n\r\n"),
    "two lengths that differ": post(b"content-length: 5", b"content-length: 6", body=b"hello"),
    "two lengths that agree": post(b"content-length: 5", b"content-length: 5", body=b"hello"),
    "a list of lengths": post(b"content-length: 5, 5", body=b"hello"),
    "a length with letters": post(b"content-length: 5x", body=b"hello"),
    "a length with a sign": post(b"content-length: +5", body=b"hello"),
    "a negative length": post(b"content-length: -5", body=b"hello"),
    "a length in hexadecimal": post(b"content-length: 0x5", body=b"hello"),
    "no length": post(b"content-length:", body=b"hello"),
    "a length with a blank": post(b"content-length: 5 5", body=b"hello"),
    "a length beyond 64 bits": post(b"content-length: 99999999999999999999", body=b"hello"),
    "a folded length": post(b"content-length:\r\n 5", body=b"hello"),
    "a coding that is none": post(b"transfer-encoding: xchunked", body=b"0\r\n\r\n"),
    "a coding before chunked": post(b"transfer-encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "a coding behind chunked": post(b"transfer-encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "chunked twice in one field": post(b"transfer-encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "chunked twice": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "no coding": post(b"transfer-encoding:", body=b"0\r\n\r\n"),
    "identity": post(b"transfer-encoding: identity", body=b"hello"),
    "chunked in quotes": post(b'transfer-encoding: "chunked"', body=b"0\r\n\r\n"),
    "chunked behind a vertical tab": post(b"transfer-encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "a folded coding": post(b"transfer-encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "chunks in HTTP/1.0": post(CHUNKED, body=b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a folded field": post(b"x-a: a\r\n b"),
    "a fold behind the first line": b"GET / HTTP/1.1\r\n host: x\r\n\r\n",
    "a bare LF behind the first line": b"GET / HTTP/1.1\nhost: x\r\n\r\n",
    "a bare LF behind a field": b"GET / HTTP/1.1\r\nhost: x\na: b\r\n\r\n",
    "a bare LF behind the head": b"GET / HTTP/1.1\r\nhost: x\r\n\n",
    "a bare CR": b"GET / HTTP/1.1\r\nhost: x\ra: b\r\n\r\n",
    "a blank before the colon": b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
    "a blank in a name": post(b"x a: b"),
    "no name": post(b": b"),
    "no colon": post(b"content-length"),
    "a control byte in a name": post(b"x\x01: b"),
    "a NUL in a value": post(b"x-a: a\x00b"),
    "a control byte in a value": post(b"x-a: a\x01b"),
    "DEL in a value": post(b"x-a: a\x7fb"),
    "two hosts": get(b"/", b"HTTP/1.1", b"host: x", b"host: y"),
    "the same host twice": get(b"/", b"HTTP/1.1", b"host: x", b"host: x"),
    "no host": get(b"/", b"HTTP/1.1", b"a: b"),
    "two hosts in HTTP/1.0": get(b"/", b"HTTP/1.0", b"host: x", b"host: y"),
    "another version": get(b"/", b"HTTP/2.0"),
    "a version that never was": get(b"/", b"HTTP/1.2"),
    "HTTP/0.9": get(b"/", b"HTTP/0.9"),
    "no version": b"GET /\r\n\r\n",
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\nhost: x\r\n\r\n",
    "a method that is none": b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n",
    "a tunnel": b"CONNECT example.org:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    "an authority": get(b"example.org:80"),
    "another scheme": get(b"ftp://example.org/a"),
    "a target without a slash": get(b"a"),
    "a blank in the target": get(b"/a b"),
    "a control byte in the target": get(b"/\x01"),
    "a byte that is no ASCII in the target": get(b"/\xff"),
    "another expectation": post(b"expect: 200-maybe"),
}
OTHERS = {
    "a coding that is none": 501, "a coding before chunked": 501, "identity": 501, "chunked in quotes": 501,
    "another version": 505, "HTTP/0.9": 505, "no version": 505, "another expectation": 417,
}  # fmt: skip
"""All else is 400."""


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_is_doubtful(name: str) -> None:
    echo = Echo()

    async def story(client: Client) -> None:
        client.send(HEADS[name] + SMUGGLED)
        status, headers, reason = await client.answer()
        assert status == OTHERS.get(name, 400), reason
        assert headers["connection"] == "close"
        assert reason, "it says what was wrong"
        assert await client.rest() == b"", "one answer, then the end"

    play(story, echo)
    assert echo.begun == []
    ((peer, status, _),) = echo.told
    assert peer.startswith("127.0.0.1:")
    assert status == OTHERS.get(name, 400)


def test_a_head_behind_a_good_request() -> None:
    """What came before is answered first; what comes after is not read."""
    echo = Echo()

    async def story(client: Client) -> None:
        client.send(post(b"content-length: 4", body=b"good") + HEADS["length and coding"] + SMUGGLED)
        assert (await client.answer())[2] == b"good"
        assert (await client.answer())[0] == 400
        assert await client.rest() == b""

    play(story, echo)
    assert [path for _, path, _ in echo.whole] == ["/"]


BODIES = {
    "a size that is none": b"Z\r\n",
    "no size": b"\r\n",
    "a negative size": b"-1\r\n",
    "a size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "a size with a blank": b"5 \r\nhello\r\n0\r\n\r\n",
    "a size and a bare LF": b"5\nhello\r\n0\r\n\r\n",
    "a chunk and a bare LF": b"5\r\nhello\n0\r\n\r\n",
    "a chunk that is longer": b"5\r\nhello, you\r\n0\r\n\r\n",
    "a chunk that is shorter": b"5\r\nhell\r\n0\r\n\r\n",
    "an extension with a bare LF": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "a trailer that is none": b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
}


@pytest.mark.parametrize("name", BODIES)
def test_chunks_that_are_doubtful(name: str) -> None:
    echo = Echo()

    async def story(client: Client) -> None:
        client.send(post(CHUNKED, body=BODIES[name] + SMUGGLED))
        assert (await client.answer())[0] == 400
        assert await client.rest() == b""

    play(story, echo)
    assert (echo.whole, "/smuggled" in echo.begun) == ([], False)


@pytest.mark.parametrize("name", BODIES)
def test_chunks_that_are_doubtful_in_a_request_sent_ahead(name: str) -> None:
    """It is never begun: what is before it is answered, then what is wrong is said."""
    echo = Echo()

    async def story(client: Client) -> None:
        client.send(get(b"/first") + post(CHUNKED, body=BODIES[name] + SMUGGLED))
        assert [(await client.answer())[0] for _ in range(2)] == [200, 400]
        assert await client.rest() == b""

    play(story, echo)
    assert echo.begun == ["/first"]


FLOODS = {
    "an extension": (b"5;", b"a" * 4_096),
    "a trailer": (b"5\r\nhello\r\n0\r\nx: ", b"a" * 4_096),
    "trailers": (b"5\r\nhello\r\n0\r\n", b"a: b\r\n" * 700),
    "extensions of small chunks": (b"", (b"1;" + b"a" * 200 + b"\r\nx\r\n") * 20),
}


@pytest.mark.parametrize("name", FLOODS)
def test_framing_without_end(name: str) -> None:
    """What stands beside the body's own bytes is bounded, however it is spread."""
    first, more = FLOODS[name]

    async def story(client: Client) -> None:
        client.send(post(CHUNKED) + first)
        sent = 0
        try:
            while sent < 32 << 20 and not client.writer.is_closing():
                client.send(more)
                sent += len(more)
                await client.writer.drain()
        except ConnectionError:
            pass
        assert sent < 8 << 20

    play(story)


GOOD: dict[str, tuple[bytes, str, bytes]] = {
    "a length": (post(b"content-length: 5", body=b"hello"), "/", b"hello"),
    "no body": (post(), "/", b""),
    "chunks": (post(CHUNKED, body=b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), "/", b"hello"),
    "CHUNKED": (post(b"Transfer-Encoding: CHUNKED", body=b"5\r\nhello\r\n0\r\n\r\n"), "/", b"hello"),
    "an extension": (post(CHUNKED, body=b'5;a=b;c="d"\r\nhello\r\n0\r\n\r\n'), "/", b"hello"),
    "a trailer": (post(CHUNKED, body=b"5\r\nhello\r\n0\r\nx: y\r\n\r\n"), "/", b"hello"),
    "a query": (get(b"/a?b=c#d"), "/a", b""),
    "a path with escapes": (get(b"/a%20b"), "/a b", b""),
    "an absolute target": (get(b"http://example.org/a?b"), "/a", b""),
    "an absolute target without a path": (get(b"http://example.org"), "/", b""),
    "the server itself": (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", "*", b""),
    "blank lines before": (b"\r\n\r\n" + get(), "/", b""),
    "blanks around a value": (b"GET / HTTP/1.1\r\nhost:\t x \t\r\n\r\n", "/", b""),
    "an empty host": (b"GET / HTTP/1.1\r\nhost:\r\n\r\n", "/", b""),
    "a GET with a body": (get(b"/", b"HTTP/1.1", b"host: x", b"content-length: 5") + b"hello", "/", b"hello"),
    "a wish for another protocol": (
        post(b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"content-length: 5", body=b"hello"), "/", b"hello",
    ),
    "such a wish in chunks": (
        post(b"connection: upgrade", b"UPGRADE: websocket", CHUNKED, body=b"5\r\nhello\r\n0\r\nx: y\r\n\r\n"), "/", b"hello",
    ),
    "such a wish without a body": (get(b"/a", b"HTTP/1.1", b"host: x", b"connection: upgrade", b"upgrade: h2c"), "/a", b""),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_is_plain_is_read(name: str) -> None:
    """Twice on one connection: where it ends is understood too."""
    content, path, body = GOOD[name]
    echo = Echo()

    async def story(client: Client) -> None:
        client.send(content * 2)
        for _ in range(2):
            assert (await client.answer())[::2] == (200, body)

    play(story, echo)
    assert [(path, body)] * 2 == [seen[1:] for seen in echo.whole]


def test_a_wish_for_another_protocol_may_come_in_two_halves() -> None:
    """Wherever the segments of its head are cut, its body is read."""
    content = GOOD["a wish for another protocol"][0]
    echo = Echo()

    async def story(client: Client) -> None:
        for cut in range(1, len(content), 3):
            client.send(content[:cut])
            await client.writer.drain()
            client.send(content[cut:])
            assert (await client.answer())[2] == b"hello"

    play(story, echo)


@pytest.mark.parametrize("many", [bounds.HEADERS_MAX + 1, 5_000])
def test_too_many_fields(many: int) -> None:
    echo = Echo()

    async def story(client: Client) -> None:
        client.send(post(*[b"a: b"] * many))
        assert (await client.answer())[0] == 431
        assert await client.rest() == b""

    play(story, echo)
    assert echo.begun == []


@pytest.mark.parametrize("field", [b"x-a: " + b"a" * 70_000, b"a" * 70_000 + b": b"])
@pytest.mark.parametrize("complete", [True, False])
def test_a_field_too_long(field: bytes, complete: bool) -> None:
    async def story(client: Client) -> None:
        client.send(post(field) if complete else post(field)[:-4])
        assert (await client.answer())[0] == 431
        assert await client.rest() == b""

    play(story)


def test_a_target_too_long() -> None:
    async def story(client: Client) -> None:
        client.send(get(b"/" + b"a" * 70_000))
        assert (await client.answer())[0] == 431

    play(story)


def test_a_large_head_and_a_body_behind_it_are_no_large_head() -> None:
    async def story(client: Client) -> None:
        body = b"b" * 100_000
        client.send(post(b"x-a: " + b"a" * 60_000, b"content-length: 100000", body=body))
        assert (await client.answer())[::2] == (200, body)

    play(story)

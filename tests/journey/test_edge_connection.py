"""One connection from its first byte to its last: order, waiting, leaving, and what each may cost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from tests.journey.edge import Client, Echo, play, serving, until

from shipworthy.http.wire import bounds
from shipworthy.http.wire.answer import Answer
from shipworthy.http.wire.request import Request

pytestmark = pytest.mark.usefixtures("each_wire")

GET = b"GET /%b HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


def post(body: bytes, *lines: bytes, length: int | None = None) -> bytes:
    size = b"content-length: %d" % (len(body) if length is None else length)
    return b"\r\n".join((b"POST / HTTP/1.1", b"host: x", size, *lines)) + b"\r\n\r\n" + body


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bound of time is over soon."""
    for name in ("HEAD_SECONDS_MAX", "KEEP_ALIVE_S", "UNREAD_SECONDS_MAX", "REFUSED_SECONDS_MAX"):
        monkeypatch.setattr(bounds, name, 0.3)


class Held(Echo):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def __call__(self, request: Request, answer: Answer) -> None:
        self.begun.append(request.path)
        request.when_gone = lambda: self.gone.append(request.path)
        await self.let.wait()
        answer.whole(200, b"", request.path.encode())


# ------------------------------------------------------------------------------------------- order


def test_requests_sent_ahead_are_answered_in_order() -> None:
    many = bounds.REQUESTS_AHEAD_MAX + 1
    echo = Echo()

    async def story(client: Client) -> None:
        client.send(b"".join(post(b"%d" % n) for n in range(many)))
        assert [(await client.answer())[2] for n in range(many)] == [b"%d" % n for n in range(many)]

    play(story, echo)


def test_one_at_a_time_runs() -> None:
    async def whole() -> None:
        held = Held()
        async with serving(held) as (_, connect):
            client = await connect()
            client.send(GET % b"1" + GET % b"2" + GET % b"3")
            await until(lambda: held.begun)
            await asyncio.sleep(0.05)
            assert held.begun == ["/1"]
            held.let.set()
            assert [(await client.answer())[2] for _ in range(3)] == [b"/1", b"/2", b"/3"]

    uvloop.run(whole())


def test_more_requests_ahead_than_may_be() -> None:
    """Those that were taken are answered, then it is said."""
    many = bounds.REQUESTS_AHEAD_MAX + 1
    echo = Echo()

    async def story(client: Client) -> None:
        client.send(GET % b"" * (many + 1_000))
        for _ in range(many):
            assert (await client.answer())[0] == 200
        assert (await client.answer())[0] == 400
        assert await client.rest() == b""

    play(story, echo)
    assert len(echo.begun) == many


def test_bytes_ahead_are_bounded() -> None:
    """Whoever sends bodies ahead is not read from until their turn comes; nothing of them is lost."""
    body = b"b" * 300_000

    async def whole() -> None:
        held = Held()
        async with serving(held) as (server, connect):
            client = await connect()
            client.send(GET % b"slow")
            await until(lambda: held.begun)
            for _ in range(40):
                client.send(post(body))
            await asyncio.sleep(0.2)
            (connection,) = server._shared.connections
            assert connection._reader._held_bytes < 1 << 20
            held.let.set()
            for _ in range(41):
                assert (await client.answer())[0] == 200

    uvloop.run(whole())


def test_a_body_that_nobody_asked_for_is_bounded() -> None:
    """It is read after its sender is known: until then the client's own buffers fill."""

    async def whole() -> None:
        held = Held()
        async with serving(held) as (server, connect):
            client = await connect()
            client.send(post(b"b" * (8 << 20)))
            await until(lambda: held.begun)
            await asyncio.sleep(0.2)
            (connection,) = server._shared.connections
            assert connection._reader._held_bytes < 1 << 20
            held.let.set()
            assert (await client.answer())[0] == 200

    uvloop.run(whole())


# ------------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize("size", [0, 1, 65_536, 1 << 20, 20 << 20])
def test_bodies_of_every_size(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)

    async def story(client: Client) -> None:
        client.send(post(body))
        assert (await client.answer())[::2] == (200, body)
        client.send(CHUNKED)
        for start in range(0, len(body), 99_991):
            piece = body[start : start + 99_991]
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.send(b"0\r\n\r\n")
        assert (await client.answer())[::2] == (200, body)

    play(story)


def test_a_body_in_the_smallest_chunks_passes() -> None:
    async def story(client: Client) -> None:
        client.send(CHUNKED)
        for _ in range(400):
            client.send(b"1\r\na\r\n" * 500)
            await client.writer.drain()
        client.send(b"0\r\nx-checksum: 1\r\n\r\n")
        assert (await client.answer())[2] == b"a" * 200_000

    play(story)


def test_a_request_a_byte_at_a_time() -> None:
    async def story(client: Client) -> None:
        for byte in post(b"hello") + CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\nx: y\r\n\r\n":
            client.send(bytes((byte,)))
            await client.writer.drain()
        assert [(await client.answer())[2] for _ in range(2)] == [b"hello", b"hello"]

    play(story)


# ------------------------------------------------------------------------------------------- Expect


def test_100_is_said_when_the_body_is_wanted() -> None:
    async def story(client: Client) -> None:
        client.send(post(b"", b"expect: 100-Continue", length=5))
        assert (await client.answer())[0] == 100
        client.send(b"hello")
        assert (await client.answer())[::2] == (200, b"hello")
        client.send(post(b"again"))
        assert (await client.answer())[2] == b"again"

    play(story)


def test_100_is_not_said_when_the_body_is_here() -> None:
    async def story(client: Client) -> None:
        client.send(post(b"hello", b"expect: 100-continue"))
        assert (await client.answer())[0] == 200

    play(story)


async def unread(request: Request, answer: Answer) -> None:
    """Refuses without reading the body."""
    answer.whole(401, b"", b"no")


def test_100_is_not_said_when_the_body_is_refused() -> None:
    """Nobody could tell whether what comes next is the body: it is the connection's last answer."""

    async def story(client: Client) -> None:
        client.send(post(b"", b"expect: 100-continue", length=5))
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (401, "close")
        assert await client.rest() == b""

    play(story, unread)


def test_http_1_0_knows_no_100() -> None:
    async def story(client: Client) -> None:
        client.send(post(b"", b"expect: 100-continue", length=5).replace(b"HTTP/1.1", b"HTTP/1.0"))
        await asyncio.sleep(0.05)
        client.send(b"hello")
        assert (await client.answer())[0] == 200

    play(story)


# ------------------------------------------------------------------------------------------- refused with the body unread


def test_the_rest_of_a_refused_body_is_read_away() -> None:
    async def story(client: Client) -> None:
        client.send(post(b"b" * 100, length=2 << 20))
        assert (await client.answer())[0] == 401
        client.send(b"b" * ((2 << 20) - 100) + post(b"next"))
        assert (await client.answer())[0] == 401

    play(story, unread)


@pytest.mark.usefixtures("brief")
def test_a_refused_body_that_goes_on_is_cut_off() -> None:
    async def story(client: Client) -> None:
        client.send(post(b"", length=2 << 30))
        assert (await client.answer())[0] == 401
        began = time.monotonic()
        try:
            while not client.writer.is_closing():
                client.send(b"b" * 1_000)
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        assert 0.2 < time.monotonic() - began < 2

    play(story, unread)


def test_a_last_answer_is_heard_by_whoever_still_sends() -> None:
    """Closed at once, the unread rest of the body would have its answer thrown away on the way."""

    async def story(client: Client) -> None:
        client.send(post(b"b" * (4 << 20), b"connection: close", length=8 << 20))
        assert (await client.answer())[::2] == (401, b"no")
        assert await client.rest() == b""

    play(story, unread)


def test_a_refused_body_that_breaks_is_not_answered_twice() -> None:
    async def story(client: Client) -> None:
        client.send(CHUNKED)
        assert (await client.answer())[0] == 401
        client.send(b"nonsense\r\n")
        assert await client.rest() == b""

    play(story, unread)


# ------------------------------------------------------------------------------------------- versions, HEAD, close


async def stream(request: Request, answer: Answer) -> None:
    answer.start(200, b"content-type: text/plain\r\n")
    for piece in (b"one", b"", b"two"):
        answer.write(piece)
        await asyncio.sleep(0)
    answer.end(b"three")


@pytest.mark.parametrize("keep", [b"", b"connection: keep-alive\r\n"])
def test_http_1_0_ends_with_its_connection(keep: bytes) -> None:
    """A length or the connection's end says where an answer ends; no chunks."""

    async def story(client: Client) -> None:
        client.send(b"GET / HTTP/1.0\r\n" + keep + b"\r\n")
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert body == b"onetwothree"
        assert b"connection: close" in head
        assert b"chunked" not in head

    play(story, stream)

    async def short(client: Client) -> None:
        client.send(b"POST / HTTP/1.0\r\ncontent-length: 2\r\n" + keep + b"\r\nhi")
        _, headers, body = await client.answer()
        assert (headers["connection"], body) == ("close", b"hi")
        assert await client.rest() == b""

    play(short)


def test_a_stream_in_chunks_and_a_request_after_it() -> None:
    async def story(client: Client) -> None:
        for _ in range(2):
            client.send(GET % b"")
            status, headers, body = await client.answer()
            assert (status, headers["transfer-encoding"], body) == (200, "chunked", b"onetwothree")
            assert "connection" not in headers

    play(story, stream)


@pytest.mark.parametrize("app", [stream, Echo()])
def test_head_has_no_body(app: Any) -> None:
    async def story(client: Client) -> None:
        for _ in range(2):
            client.send(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
        client.half_close()
        assert await client.rest() == b""

    play(story, app)


def test_close_closes() -> None:
    async def story(client: Client) -> None:
        client.send(post(b"hi", b"connection: close") + post(b"ignored"))
        _, headers, body = await client.answer()
        assert (headers["connection"], body) == ("close", b"hi")
        assert await client.rest() == b""

    play(story)


# ------------------------------------------------------------------------------------------- waiting


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("begun", [b"", b"P", post(b"hi")[:20], b"\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_head_that_does_not_come(begun: bytes) -> None:
    async def story(client: Client) -> None:
        began = time.monotonic()
        client.send(begun)
        assert (await client.answer())[0] == 408
        assert await client.rest() == b""
        assert time.monotonic() - began < 1.5

    play(story)


@pytest.mark.usefixtures("brief")
def test_a_head_that_drips() -> None:
    async def story(client: Client) -> None:
        began = time.monotonic()
        while not client.writer.is_closing():
            client.send(b"x")
            await asyncio.sleep(0.02)
        assert time.monotonic() - began < 1.5

    play(story)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("after", [b"\r\n", b"GET / HT"])
def test_a_second_head_that_does_not_come(after: bytes) -> None:
    async def story(client: Client) -> None:
        client.send(post(b"hi") + after)
        assert (await client.answer())[0] == 200
        client.send(b"" if after.startswith(b"G") else after)
        assert (await client.answer())[0] == 408

    play(story)


@pytest.mark.usefixtures("brief")
def test_an_idle_connection_is_closed_without_a_word() -> None:
    async def story(client: Client) -> None:
        client.send(post(b"hi"))
        await client.answer()
        began = time.monotonic()
        assert await client.rest() == b""
        assert 0.1 < time.monotonic() - began < 1.5

    play(story)


@pytest.mark.usefixtures("brief")
def test_what_runs_is_waited_for() -> None:
    """No bound of the connection's ends a request that the client waits for."""

    async def whole() -> None:
        held = Held()
        async with serving(held) as (_, connect):
            client = await connect()
            client.send(GET % b"1" + b"GET /2 HT")
            await asyncio.sleep(1.2)
            held.let.set()
            assert (await client.answer())[2] == b"/1"
            client.send(b"TP/1.1\r\nhost: x\r\n\r\n")
            assert (await client.answer())[2] == b"/2"

    uvloop.run(whole())


# ------------------------------------------------------------------------------------------- leaving


LEAVES: dict[str, Callable[[Client], object]] = {
    "reset": lambda client: client.leave(),
    "close": lambda client: client.writer.close(),
    "half-close": lambda client: client.half_close(),
}


@pytest.mark.parametrize("way", LEAVES)
def test_leaving_is_told_at_once(way: str) -> None:
    """While the app works, and with requests waiting, which are never begun."""

    async def whole() -> None:
        held = Held()
        async with serving(held) as (server, connect):
            client = await connect()
            client.send(GET % b"1" + GET % b"2" + b"GET /3 HT")
            await until(lambda: held.begun)
            LEAVES[way](client)
            await until(lambda: held.gone)
            held.let.set()
            await until(lambda: server.connections == 0)
            assert (held.begun, held.gone) == (["/1"], ["/1"])

    uvloop.run(whole())


@pytest.mark.parametrize("way", LEAVES)
def test_leaving_in_the_midst_of_the_body(way: str) -> None:
    async def whole() -> None:
        echo = Echo()
        async with serving(echo) as (server, connect):
            client = await connect()
            client.send(post(b"half", length=8))
            await until(lambda: echo.begun)
            LEAVES[way](client)
            await until(lambda: server.connections == 0)
            assert (echo.gone, echo.whole) == (["/"], [])

    uvloop.run(whole())


def test_leaving_in_the_midst_of_a_stream() -> None:
    async def whole() -> None:
        gone: list[bool] = []

        async def app(request: Request, answer: Answer) -> None:
            request.when_gone = lambda: gone.append(True)
            answer.start(200, b"")
            while not gone:
                answer.write(b"more")
                await asyncio.sleep(0.001)
            answer.write(b"to nobody")
            answer.end(b"the end")

        async with serving(app) as (server, connect):
            client = await connect()
            client.send(GET % b"")
            await client.reader.readuntil(b"more")
            client.leave()
            await until(lambda: server.connections == 0)
            assert gone == [True]

    uvloop.run(whole())


def test_leaving_after_the_answer_is_told_nobody() -> None:
    async def whole() -> None:
        echo = Echo()
        async with serving(echo) as (server, connect):
            client = await connect()
            client.send(post(b"hi"))
            await client.answer()
            client.leave()
            await until(lambda: server.connections == 0)
            assert echo.gone == []

    uvloop.run(whole())


# ------------------------------------------------------------------------------------------- who does not read


async def endless(request: Request, answer: Answer) -> None:
    answer.start(200, b"")
    for _ in range(1_000):
        answer.write(b"x" * 100_000)
        if answer.paused:
            await answer.drained()
    answer.end()


def test_what_nobody_reads_is_not_written() -> None:
    """The app waits; memory holds what the buffers hold. Whoever reads on gets all."""
    written = 0

    async def app(request: Request, answer: Answer) -> None:
        nonlocal written
        answer.start(200, b"")
        for _ in range(500):
            answer.write(b"x" * 100_000)
            written += 100_000
            if answer.paused:
                await answer.drained()
        answer.end()

    async def whole() -> None:
        async with serving(app) as (_, connect):
            client = await connect()
            client.stop_reading()
            client.send(GET % b"")
            await asyncio.sleep(0.3)
            assert 0 < written < 16 << 20
            client.read_on()
            assert len((await client.answer())[2]) == written == 50_000_000

    uvloop.run(whole())


@pytest.mark.usefixtures("brief")
def test_whoever_does_not_read_is_given_up() -> None:
    async def whole() -> None:
        async with serving(endless) as (server, connect):
            client = await connect()
            client.stop_reading()
            client.send(GET % b"")
            await asyncio.sleep(0.1)
            assert server.connections == 1
            await until(lambda: server.connections == 0, seconds=2)

    uvloop.run(whole())


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("last", [b"", b"nonsense\r\n\r\n"])
def test_whoever_does_not_read_gets_no_second_answer(last: bytes) -> None:
    """A request sent ahead waits until the answer before it has found its reader; here, for ever."""
    begun = 0

    async def app(request: Request, answer: Answer) -> None:
        nonlocal begun
        begun += 1
        answer.whole(200, b"", b"x" * 20_000_000)

    async def whole() -> None:
        async with serving(app) as (server, connect):
            client = await connect()
            client.stop_reading()
            client.send(GET % b"1" + GET % b"2" + last)
            await asyncio.sleep(0.1)
            assert begun == 1
            await until(lambda: server.connections == 0, seconds=2)
            assert begun == 1

    uvloop.run(whole())


def test_requests_ahead_of_a_slow_reader_are_all_answered() -> None:
    async def app(request: Request, answer: Answer) -> None:
        answer.whole(200, b"", request.path.encode() * 1_000_000)

    async def story(client: Client) -> None:
        client.send(GET % b"1" + GET % b"2" + GET % b"3")
        for n in (b"/1", b"/2", b"/3"):
            await asyncio.sleep(0.1)
            assert (await client.answer())[2] == n * 1_000_000

    play(story, app)


# ------------------------------------------------------------------------------------------- apps that break


def test_an_app_that_fails_answers_500() -> None:
    heard: list[str] = []

    async def app(request: Request, answer: Answer) -> None:
        raise ZeroDivisionError("a bug")

    async def story(client: Client) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: heard.append(str(context["exception"])))
        for _ in range(2):
            client.send(GET % b"")
            assert (await client.answer())[0] == 500

    play(story, app)
    assert heard == ["a bug", "a bug"]


@pytest.mark.parametrize("fails", [True, False])
def test_half_an_answer_does_not_look_whole(fails: bool) -> None:
    async def app(request: Request, answer: Answer) -> None:
        answer.start(200, b"")
        answer.write(b"half")
        if fails:
            raise ZeroDivisionError("a bug")

    async def story(client: Client) -> None:
        client.send(GET % b"")
        assert not (await client.rest()).endswith(b"0\r\n\r\n")

    play(story, app)


# ------------------------------------------------------------------------------------------- the server


def test_one_connection_too_many_is_closed_at_once() -> None:
    async def whole() -> None:
        async with serving(Echo(), connections_max=3) as (server, connect):
            clients = [await connect() for _ in range(3)]
            await until(lambda: server.connections == 3)
            with contextlib.suppress(ConnectionError):  # over TLS not even that is agreed on
                assert await (await connect()).rest() == b""
            clients[0].leave()
            await until(lambda: server.connections == 2)
            last = await connect()
            for client in (*clients[1:], last):
                client.send(post(b"hi"))
                assert (await client.answer())[2] == b"hi"

    uvloop.run(whole())


def test_a_client_that_left_keeps_its_place_until_its_request_has_ended() -> None:
    """What runs for it still takes a file to its provider."""

    async def whole() -> None:
        held = Held()
        async with serving(held, connections_max=1) as (server, connect):
            client = await connect()
            client.send(GET % b"1")
            await until(lambda: held.begun)
            client.leave()
            await until(lambda: held.gone)
            assert server.connections == 1
            held.let.set()
            await until(lambda: server.connections == 0)

    uvloop.run(whole())


def test_the_end_lets_what_runs_finish() -> None:
    async def whole() -> None:
        held = Held()
        async with serving(held) as (server, connect):
            busy, idle = await connect(), await connect()
            busy.send(GET % b"1")
            await until(lambda: held.begun and server.connections == 2)
            ending = asyncio.create_task(server.end(5.0))
            assert await idle.rest() == b""
            with pytest.raises(ConnectionError):
                await connect()
            held.let.set()
            _, headers, body = await busy.answer()
            assert (headers["connection"], body) == ("close", b"/1")
            await asyncio.wait_for(ending, 1)

    uvloop.run(whole())


def test_parting_servers_still_answer() -> None:
    """During the drain: whoever comes is answered, once a connection."""

    async def whole() -> None:
        async with serving(Echo()) as (server, connect):
            kept = await connect()
            kept.send(post(b"before"))
            assert "connection" not in (await kept.answer())[1]
            server.part()
            for client in (kept, await connect()):
                client.send(post(b"hi"))
                assert (await client.answer())[1]["connection"] == "close"
                assert await client.rest() == b""

    uvloop.run(whole())


def test_the_end_waits_for_no_reader_for_ever() -> None:
    async def whole() -> None:
        async with serving(endless) as (server, connect):
            client = await connect()
            client.stop_reading()
            client.send(GET % b"")
            await asyncio.sleep(0.1)
            began = time.monotonic()
            await server.end(0.3)
            assert 0.2 < time.monotonic() - began < 1
            await until(lambda: server.connections == 0)

    uvloop.run(whole())


def test_unread_bodies_are_given_back() -> None:
    """Whatever becomes of a request, what was held of it is free afterwards."""

    async def story(client: Client) -> None:
        for _ in range(20):
            client.send(post(b"b" * 50_000))
            assert (await client.answer())[0] == 401
        (connection,) = client.server._shared.connections
        assert connection._reader._held_bytes == 0

    play(story, unread)

"""One client's connection: requests come in, answers go out in the same order, each within its bounds.

A client that sends its head a byte at a time holds a connection for ``HEAD_SECONDS_MAX``, not for ever; one that does not
read what it asked for, for ``UNREAD_SECONDS_MAX``; one that goes on sending a body that was refused, for
``REFUSED_SECONDS_MAX``. One that closes even its own half has left: the request that runs is told so at once.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum

from shipworthy.http.wire import bounds
from shipworthy.http.wire.answer import Answer, plain
from shipworthy.http.wire.peer import peer_of
from shipworthy.http.wire.reader import Malformed, Reader
from shipworthy.http.wire.request import Request
from shipworthy.straight import straight

NEVER = math.inf
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

App = Callable[[Request, Answer], Awaitable[None]]
Tell = Callable[[str, int, str], None]
"""Hears of every peer that was told a status because of what it sent: the peer, the status, the reason."""


class Shared:
    """What the connections of one server have in common."""

    __slots__ = ("app", "connections", "connections_max", "date", "emptied", "keeping", "tell")

    def __init__(self, app: App, tell: Tell, connections_max: int) -> None:
        self.app = app
        self.tell = tell
        self.connections_max = connections_max
        self.connections: set[Connection] = set()  # one whose client has left stays until its request has ended
        self.emptied = asyncio.Event()
        self.keeping = True  # connections may outlive the answer that is given
        self.date = b""

    def drop(self, connection: Connection) -> None:
        self.connections.discard(connection)
        connection.let_go()
        if not self.connections:
            self.emptied.set()


class Waits(Enum):
    """What a connection waits for its client to do, while it answers nothing."""

    NOTHING = "it is answering"
    HEAD = "the head of a request"
    IDLE = "the next request, if any"
    REST = "the rest of a body that was refused"
    CLOSE = "the last bytes to be read"


class Connection(asyncio.Protocol):
    """The protocol that stands between one socket and the app. At most one request of it runs."""

    __slots__ = (
        "_ahead", "_answer", "_deaf", "_drains", "_fault", "_loop", "_lost", "_reader", "_request", "_shared", "_task",
        "_transport", "_waits", "due", "now", "paused", "soon", "unread_due", "write",
    )  # fmt: skip

    _transport: asyncio.Transport
    _reader: Reader
    _task: asyncio.Task[None] | None
    write: Callable[[bytes], None]
    now: Callable[[], float]
    soon: Callable[[Callable[[], None]], object]

    def __init__(self, shared: Shared, loop: asyncio.AbstractEventLoop) -> None:
        self._shared = shared
        self._loop = loop
        self.now = loop.time
        self.soon = loop.call_soon
        self._request: Request | None = None  # the one that runs
        self._answer: Answer | None = None
        self._ahead: deque[Request] = deque()  # those that wait for their turn
        self._fault: Malformed | None = None  # said when it is its turn
        self._lost = False
        self._deaf = False  # what still comes is not looked at
        self._drains: list[asyncio.Future[None]] = []
        self._waits = Waits.NOTHING
        self.due = NEVER  # loop time at which the client has not done what is waited for
        self.unread_due = NEVER
        self.paused = False

    # -- the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        shared = self._shared
        if len(shared.connections) >= shared.connections_max:
            transport.abort()
            return
        shared.connections.add(self)
        peer = peer_of(transport)
        self.write = straight(transport)
        self._reader = Reader(transport, peer, self._begin, self._wanted)
        self._wait(Waits.HEAD, bounds.HEAD_SECONDS_MAX)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        reader = self._reader
        try:
            reader.feed(data)
        except Malformed as fault:
            self._refuse(fault)
            return
        if self._waits is Waits.IDLE:
            self._wait(Waits.HEAD, bounds.HEAD_SECONDS_MAX)  # blank lines between requests keep nothing alive
        elif self._waits is Waits.REST and not reader.body_open:
            self._next()

    def eof_received(self) -> bool:
        self._leave()
        self._wait(Waits.CLOSE, bounds.UNREAD_SECONDS_MAX)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._lost = self._deaf = True
        self.due = self.unread_due = NEVER
        self._resume()
        if self._request is None:
            self._shared.drop(self)

    def pause_writing(self) -> None:
        self.paused = True
        self.unread_due = self._loop.time() + bounds.UNREAD_SECONDS_MAX

    def resume_writing(self) -> None:
        self.unread_due = NEVER
        self._resume()
        if self._answer is None and self._waits is Waits.NOTHING:
            self._next()

    def let_go(self) -> None:
        """It is over, and nothing runs for it: what knows it is let go, or all of it would wait for the collector."""
        self._fault = None
        reader = getattr(self, "_reader", None)  # there is none where there was no room for the connection
        if reader is not None:
            reader.end()
            del self._reader

    def _resume(self) -> None:
        self.paused = False
        for drain in self._drains:
            if not drain.done():
                drain.set_result(None)
        self._drains.clear()

    # -- requests

    def _begin(self, request: Request) -> None:
        """The head of a request is here."""
        if self._answer is None and not self.paused:
            self._run(request)
        elif len(self._ahead) < bounds.REQUESTS_AHEAD_MAX:
            self._ahead.append(request)
            self._reader.hold_head(request)
        else:
            raise Malformed(400, f"more than {bounds.REQUESTS_AHEAD_MAX} requests were sent ahead")

    def _run(self, request: Request) -> None:
        self._waits, self.due = Waits.NOTHING, NEVER
        answer = Answer(self, keep=request.keep, bodiless=request.method == "HEAD", chunked=not request.old)
        self._request, self._answer = request, answer
        self._task = self._loop.create_task(self._serve(request, answer))

    async def _serve(self, request: Request, answer: Answer) -> None:
        try:
            await self._shared.app(request, answer)
        except Exception as bug:  # noqa: BLE001 - whatever it is, it costs this connection, no other
            self._loop.call_exception_handler({"message": "a request was not answered", "exception": bug})
            if not answer.started:
                answer.whole(500, b"", b"")
        finally:
            self._served(request, answer)

    def _served(self, request: Request, answer: Answer) -> None:
        """The request that ran has come to its end."""
        self._request = self._answer = self._task = None
        if request.gone:
            if self._lost:
                self._shared.drop(self)
            return
        request.answered = True
        request.take()
        self._reader.forget(request)
        keep = answer.keep and self._shared.keeping
        if not answer.ended:
            answer.gone = True
            self._transport.abort()  # the client must not take it for a whole answer
        elif not request.complete:
            self._wait(Waits.REST, bounds.REFUSED_SECONDS_MAX)
            if not keep:
                self._deaf = True
                self._transport.write_eof()  # closed now, the rest of the body would destroy the answer on its way
        elif keep:
            self._next()
        else:
            self._close()

    def _next(self) -> None:
        """Whose turn is it?"""
        if self.paused:
            self._waits = Waits.NOTHING
        elif self._ahead:
            request = self._ahead.popleft()
            self._reader.let_go_head(request)
            self._run(request)
        elif self._fault is not None:
            self._end(self._fault)
        elif self._reader.head_begun:
            self._wait(Waits.HEAD, bounds.HEAD_SECONDS_MAX)
        else:
            self._wait(Waits.IDLE, bounds.KEEP_ALIVE_S)

    # -- the end

    def finish(self) -> None:
        """Closes as soon as nothing is being answered. The server keeps no connection any more."""
        if self._request is None and not self._ahead:
            self._close()

    def abort(self) -> None:
        self._transport.abort()

    def overdue(self, now: float) -> None:
        """Gives up a client that has not done what was waited for."""
        if self.unread_due <= now or self._waits is Waits.CLOSE:
            self._transport.abort()
        elif self._waits is Waits.HEAD:
            self._end(Malformed(408, f"the head of the request did not come within {bounds.HEAD_SECONDS_MAX:g} s"))
        else:
            self._close()

    def _refuse(self, fault: Malformed) -> None:
        """What came is no request. It is said when all before it is answered, and nothing after it."""
        self._deaf = True
        newest = self._reader.request
        broken = newest is not None and not newest.complete  # what is wrong is its body
        if broken and self._ahead and self._ahead[-1] is newest:
            self._ahead.pop()
        if broken and self._request is newest and self._answer is not None:
            started = self._answer.started
            self._leave()
            self._close() if started else self._end(fault)
        elif self._waits is Waits.REST:
            self._close()
        else:
            self._fault = fault
            if self._request is None:
                self._next()

    def _end(self, fault: Malformed) -> None:
        """The last that is said."""
        self._shared.tell(self._reader.peer, fault.status, fault.reason)
        self.write(plain(fault.status, fault.reason))
        self._close()

    def _close(self) -> None:
        self._deaf = True
        self._wait(Waits.CLOSE, bounds.UNREAD_SECONDS_MAX)
        self._transport.close()

    def _leave(self) -> None:
        """The client has left, or is left: what runs for it is told, what waits is dropped."""
        self._ahead.clear()
        if self._answer is not None:
            self._answer.gone = True
        if self._request is not None:
            self._request.left()

    # -- what an answer needs

    @property
    def date(self) -> bytes:
        return self._shared.date

    @property
    def keeping(self) -> bool:
        """False too where the client was never told to send its body: it may, or may not, and nobody could tell."""
        request = self._request
        return self._shared.keeping and (request is None or request.complete or not request.expects)

    async def drained(self) -> None:
        while self.paused:
            drain = self._loop.create_future()
            self._drains.append(drain)
            await drain

    # -- bounds

    def _wanted(self, taken: int) -> None:
        """The running request asks for its body, or took so much of it."""
        if taken:
            self._reader.let_go(taken)
        elif self._request is not None and self._request.expects:
            self._request.expects = False
            self.write(_CONTINUE)

    def _wait(self, waits: Waits, seconds: float) -> None:
        self._waits = waits
        self.due = self._loop.time() + seconds

"""The transport over aiohttp: one session a provider, its connections kept and reused.

What surprises here is the request body, ``_Body``: it is the only place where aiohttp shows the connection before the first
byte is written. There a connection that the provider has meanwhile closed is noticed, so that the request can safely go
over a fresh one, and from there a cancel can abort what is still unsent; closing would first send the rest, and bill it.
And ``_Reading``: aiohttp 3.14 tells nobody when a body's framing turns out to be garbled, so the reader would wait for ever.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp import payload
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import StreamWriter
from msgspec import Struct
from yarl import URL

from shipworthy import __version__
from shipworthy.adapters.providers.inflate import Inflater, inflater
from shipworthy.model.errors import FailureKind, ProviderFailure, StartRefused
from shipworthy.model.route import Timeouts

HEADER_LINE_BYTES_MAX = 8_190
HEADERS_MAX = 100
READ_BUFFER_BYTES = 65_536  # aiohttp stops reading from the socket at twice this
WRITE_SLICE_BYTES = 262_144
REQUEST_ID = "x-client-request-id"  # OpenAI logs it, others pass it over
LINGER_S = 0.25  # how long an answer may take to end after its last event
DNS_TTL_S = 60
SENDS_MAX = 2  # the second only when the first provably sent nothing
_LINGER_NOT = struct.pack("ii", 1, 0)
_PEER_CLOSED = getattr(select, "POLLRDHUP", select.POLLHUP) | select.POLLHUP | select.POLLERR

FOREIGN: tuple[tuple[type[BaseException], FailureKind, str], ...] = (
    (aiohttp.ConnectionTimeoutError, FailureKind.CONNECT, "no connection in time"),
    (aiohttp.ClientConnectorDNSError, FailureKind.CONNECT, "the host name does not resolve"),
    (aiohttp.ClientConnectorCertificateError, FailureKind.CONNECT, "the certificate is not trusted"),
    (aiohttp.ClientConnectorSSLError, FailureKind.CONNECT, "no TLS could be agreed on"),
    (aiohttp.ClientProxyConnectionError, FailureKind.CONNECT, "the proxy cannot be reached"),
    (aiohttp.ClientConnectorError, FailureKind.CONNECT, "no connection"),
    (aiohttp.ClientHttpProxyError, FailureKind.CONNECT, "the proxy refused"),
    (aiohttp.SocketTimeoutError, FailureKind.FIRST_TOKEN_TIMEOUT, "no byte of an answer in time"),
    (aiohttp.ServerDisconnectedError, FailureKind.BROKEN, "the connection was closed before an answer"),
    (aiohttp.ClientResponseError, FailureKind.BROKEN, "the answer's head is not HTTP, or too large"),
    (aiohttp.ClientPayloadError, FailureKind.BROKEN, "the answer ended half-way or its framing is garbled"),
    (aiohttp.ClientOSError, FailureKind.BROKEN, "the connection was reset"),
    (aiohttp.ClientError, FailureKind.BROKEN, "the connection failed"),
)


class Endpoint(Struct, frozen=True):
    """Where a provider is and how its answers are bounded. ``headers`` go with every request, credentials among them."""

    base_url: str
    headers: Mapping[str, str]
    timeouts: Timeouts
    idle_ms_max: int
    keepalive_ms: int
    reply_bytes_max: int
    proxy: str = ""
    ca_file: Path | None = None

    def __repr__(self) -> str:  # headers and proxy hold secrets
        return f"Endpoint({self.base_url})"


class AiohttpTransport:
    """Implements ``transport.Transport``. The session begins with the first request, inside the running loop."""

    def __init__(self, endpoint: Endpoint, paths: tuple[str, ...]) -> None:
        self._endpoint = endpoint
        self._urls = {path: URL(endpoint.base_url.rstrip("/") + path) for path in paths}
        self._tls = tls_context(endpoint.ca_file) if endpoint.base_url.startswith("https:") else True
        silence_ms = max(endpoint.idle_ms_max, endpoint.timeouts.first_token_ms)
        self._stream_bounds = bounds(endpoint.timeouts.connect_ms, silence_ms)
        self._whole_bounds = bounds(endpoint.timeouts.connect_ms, endpoint.timeouts.total_ms)
        self._session: aiohttp.ClientSession | None = None
        self._readings: WeakKeyDictionary[ResponseHandler, _Reading] = WeakKeyDictionary()

    async def post(self, path: str, body: bytes, *, traceparent: str, request_id: str, stream: bool) -> HttpAnswer:
        session = self._session or self._begin()
        headers = {REQUEST_ID: request_id}
        if traceparent:
            headers["traceparent"] = traceparent
        patience = self._stream_bounds if stream else self._whole_bounds
        for send in range(1, SENDS_MAX + 1):
            outgoing = _Body(body)
            try:
                response = await session.post(
                    self._urls[path], data=outgoing, headers=headers, allow_redirects=False, timeout=patience
                )
                self._watch(response)
                return HttpAnswer(response, outgoing, self._endpoint.reply_bytes_max)
            except (aiohttp.ClientError, OSError) as reason:
                outgoing.abort()
                if not outgoing.stale or send == SENDS_MAX:
                    raise translated(reason, sent=outgoing.begun) from reason
            except BaseException:  # cancelled: the provider must see it before it has read, and billed, the rest
                outgoing.abort()
                raise
        raise AssertionError("unreachable: the last send returns or raises")

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _watch(self, response: aiohttp.ClientResponse) -> None:
        """Sees to it that a reader of ``response`` learns when its connection is lost."""
        if response.connection is None:  # the body is here already
            return
        protocol = response.connection.protocol
        assert protocol is not None
        reading = self._readings.get(protocol)
        if reading is None:
            reading = self._readings[protocol] = _Reading()
            if protocol.closed is not None:
                protocol.closed.add_done_callback(reading.lost)
        reading.content = response.content

    def _begin(self) -> aiohttp.ClientSession:
        endpoint = self._endpoint
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # the call stage keeps concurrent_max: nothing queues here
                force_close=endpoint.keepalive_ms == 0,
                keepalive_timeout=endpoint.keepalive_ms / 1_000 if endpoint.keepalive_ms else None,
                ttl_dns_cache=DNS_TTL_S,
                ssl=self._tls,
            ),
            headers={
                "accept": "application/json, text/event-stream",
                "accept-encoding": "identity",
                "content-type": "application/json",
                "user-agent": f"shipworthy/{__version__}",
                **endpoint.headers,
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            proxy=endpoint.proxy or None,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=HEADER_LINE_BYTES_MAX,
            max_field_size=HEADER_LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
        )
        return self._session


class HttpAnswer:
    """Implements ``transport.Answer`` over one aiohttp response."""

    __slots__ = ("_body", "_bytes_left", "_failed", "_inflater", "_pieces", "_response")

    def __init__(self, response: aiohttp.ClientResponse, body: _Body, bytes_max: int) -> None:
        self._response = response
        self._body = body
        self._bytes_left = bytes_max
        self._failed: ProviderFailure | None = None
        self._pieces: Iterator[bytes] | None = None
        try:
            self._inflater: Inflater | None = inflater(self.header("content-encoding"))
        except ValueError as reason:
            self._inflater = None
            self._failed = ProviderFailure(FailureKind.INVALID, str(reason), sent=True, status=response.status)

    @property
    def status(self) -> int:
        return self._response.status

    def header(self, name: str) -> str:
        return self._response.headers.get(name, "")

    async def read(self) -> bytes:
        if self._failed is not None:
            raise self._failed
        try:
            piece = await self._response.content.readany() if self._inflater is None else await self._inflated()
        except aiohttp.ClientError as reason:
            raise self._fail(translated(reason, sent=True, begun=True)) from reason
        except ValueError as reason:
            raise self._fail(
                ProviderFailure(FailureKind.BROKEN, str(reason), sent=True, status=self.status)
            ) from reason
        self._bytes_left -= len(piece)
        if self._bytes_left < 0:
            raise self._fail(
                ProviderFailure(
                    FailureKind.INVALID, "the answer is larger than reply_bytes_max", sent=True, status=self.status
                )
            )
        return piece

    async def _inflated(self) -> bytes:
        assert self._inflater is not None
        while True:
            if self._pieces is not None and (piece := next(self._pieces, b"")):
                return piece
            packed = await self._response.content.readany()
            if not packed:
                if not self._inflater.ended():
                    raise ValueError("the compressed body ended half-way")
                return b""
            self._pieces = self._inflater.pieces(packed)

    def _fail(self, failure: ProviderFailure) -> ProviderFailure:
        self._failed = failure
        self.close()
        return failure

    def finish(self) -> None:
        content = self._response.content
        if not content.is_eof():
            patience = asyncio.get_running_loop().call_later(LINGER_S, self.close)
            content.on_eof(patience.cancel)

    def close(self) -> None:
        if self._response.connection is not None:
            self._body.abort()
        self._response.close()


class _Reading:
    """What is read from one connection."""

    __slots__ = ("content",)

    content: aiohttp.StreamReader

    def lost(self, closed: asyncio.Future[None]) -> None:
        if not closed.cancelled():
            closed.exception()  # seen: aiohttp raises its own where it matters
        if not self.content.is_eof() and self.content.exception() is None:
            self.content.set_exception(aiohttp.ClientPayloadError("the framing is garbled"))


class _Body(payload.Payload):
    """The request's bytes, and what happened to them: ``begun`` once a byte may have left."""

    _autoclose = True  # memory only: nothing to close

    def __init__(self, content: bytes) -> None:
        super().__init__(content, content_type="application/json")
        self._size = len(content)
        self._transport: asyncio.Transport | None = None
        self._written = False
        self.begun = False
        self.stale = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        assert isinstance(writer, StreamWriter)
        transport = writer.transport
        if transport is None or transport.is_closing() or peer_closed(transport):
            self.stale = True
            raise ConnectionResetError("the kept connection was closed by the provider")
        self._transport = transport
        self.begun = True
        content = memoryview(self._value)
        for start in range(0, len(content), WRITE_SLICE_BYTES):
            await writer.write(content[start : start + WRITE_SLICE_BYTES])
        self._written = True

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self._value).decode(encoding, errors)

    def abort(self) -> None:
        """Ends the connection. A body that is not out yet is dropped here and in the kernel, by a reset."""
        transport = self._transport
        if transport is None:
            return
        if not self._written or transport.get_write_buffer_size():
            with_reset(transport)
        transport.abort()


def peer_closed(transport: asyncio.BaseTransport) -> bool:
    """Whether the kernel already knows that the other side closed, which the loop may not have noticed yet."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), _PEER_CLOSED)
    return bool(poll.poll(0))


def with_reset(transport: asyncio.BaseTransport) -> None:
    """The connection's end will be a reset, which also drops what the other side has not read."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)


def translated(reason: BaseException, *, sent: bool, begun: bool = False) -> ProviderFailure:
    """The failure that an exception of aiohttp is. ``begun``: the answer's head had arrived."""
    for foreign, kind, words in FOREIGN:
        if isinstance(reason, foreign):
            if begun and kind is FailureKind.FIRST_TOKEN_TIMEOUT:
                kind, words = FailureKind.BROKEN, "no byte for longer than idle_ms_max"
            why = reason.strerror if isinstance(reason, OSError) and reason.strerror else ""
            if kind is FailureKind.CONNECT or not sent:
                return ProviderFailure(FailureKind.CONNECT, f"{words} ({why})" if why else words, sent=False)
            return ProviderFailure(kind, f"{words} ({why})" if why else words, sent=True)
    return ProviderFailure(FailureKind.BROKEN if sent else FailureKind.CONNECT, f"{type(reason).__name__}", sent=sent)


def bounds(connect_ms: int, silence_ms: int) -> aiohttp.ClientTimeout:
    """How long aiohttp waits for a connection, and for the next byte; never rounded up to whole seconds."""
    connect_s = connect_ms / 1_000
    return aiohttp.ClientTimeout(
        connect=connect_s, sock_connect=connect_s, sock_read=silence_ms / 1_000, ceil_threshold=86_400
    )


@lru_cache(maxsize=16)
def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Certificates and host names are verified; ``ca_file`` replaces the machine's authorities. Raises StartRefused."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as reason:  # ssl.SSLError among them
        why = reason.strerror or "it holds no certificate in PEM"
        raise StartRefused(
            "provider.ca_file",
            f"{ca_file} cannot be used: {why}",
            "name a file of PEM certificates that the server may read",
        ) from reason
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

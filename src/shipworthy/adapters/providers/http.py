"""The transport over connections of our own, HTTP/1.1: what a provider is asked, in which bytes, and what its answer is.

    Endpoint   where a provider is, and the bounds on its answers
    places     a host's addresses                    race     the first of them that answers
    tunnel     a proxy's CONNECT                     dial     all three and TLS: a connection comes about
    framing    one answer out of bytes               wire     one connection: a request, its answer, its end
    pool       connections that are kept             here     requests, and answers unpacked and bounded

Why not a library: sending and reading through it cost more than all that the gateway decides in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from msgspec import Struct

from shipworthy import __version__
from shipworthy.adapters.providers.dial import Dialler, Proxy, proxy_at, tls_context
from shipworthy.adapters.providers.framing import Incoming
from shipworthy.adapters.providers.inflate import Inflater, inflater
from shipworthy.adapters.providers.places import Place, place
from shipworthy.adapters.providers.pool import Pool
from shipworthy.adapters.providers.wire import Wire
from shipworthy.model.errors import FailureKind, ProviderFailure
from shipworthy.model.route import Timeouts

if TYPE_CHECKING:  # what looks at certificates takes its time to import, and is not always wanted
    from shipworthy.manifest.certificates import Certificate

REQUEST_ID = "x-client-request-id"  # OpenAI logs it, others pass it over
OF_EACH_REQUEST = ("content-length", "traceparent", REQUEST_ID)


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
    certificate: Certificate | None = None  # that the provider is shown

    def __repr__(self) -> str:  # headers and proxy hold secrets
        return f"Endpoint({self.base_url})"


class HttpTransport:
    """Implements ``transport.Transport``. It belongs to the loop of its first request, and is not used after ``close``."""

    def __init__(self, endpoint: Endpoint, paths: tuple[str, ...]) -> None:
        to, proxy = place(endpoint.base_url, "provider.base_url"), proxy_at(endpoint.proxy)
        encrypts = to.tls or (proxy is not None and proxy.place.tls)
        tls = tls_context(endpoint.ca_file, endpoint.certificate if to.tls else None) if encrypts else None
        dialler = Dialler(to, proxy, tls, endpoint.timeouts.connect_ms / 1_000, endpoint.ca_file)
        self._heads = {path: head(endpoint, to, proxy, path) for path in paths}
        self._pool = Pool(dialler.dial, endpoint.keepalive_ms / 1_000)
        self._stream_silence_s = max(endpoint.idle_ms_max, endpoint.timeouts.first_token_ms) / 1_000
        self._whole_silence_s = endpoint.timeouts.total_ms / 1_000
        self._reply_bytes_max = endpoint.reply_bytes_max

    async def post(self, path: str, body: bytes, *, traceparent: str, request_id: str, stream: bool) -> HttpAnswer:
        start = self._heads[path] % (len(body), one_line(request_id))
        start += b"traceparent: %b\r\n\r\n" % one_line(traceparent) if traceparent else b"\r\n"
        pool = self._pool
        wire = pool.kept() or await pool.fresh()  # nothing is awaited between this look at it and the first byte
        incoming = wire.send(start, body, self._stream_silence_s if stream else self._whole_silence_s)
        del body  # it may be large, and the answer long in coming
        await wire.head(incoming)
        return HttpAnswer(wire, incoming, self._reply_bytes_max)

    async def close(self) -> None:
        self._pool.close()


class HttpAnswer:
    """Implements ``transport.Answer`` over what is incoming on a connection."""

    __slots__ = ("_bytes_left", "_failed", "_incoming", "_inflater", "_pieces", "_wire", "status")

    def __init__(self, wire: Wire, incoming: Incoming, bytes_max: int) -> None:
        self.status = incoming.status
        self._wire = wire
        self._incoming = incoming
        self._bytes_left = bytes_max
        self._failed: ProviderFailure | None = None
        self._inflater: Inflater | None = None
        self._pieces: Iterator[bytes] | None = None
        if packed := incoming.headers.get(b"content-encoding"):
            try:
                self._inflater = inflater(packed.decode("latin-1"))
            except ValueError as reason:
                self._failed = ProviderFailure(FailureKind.INVALID, str(reason), sent=True, status=self.status)

    def header(self, name: str) -> str:
        return self._incoming.headers.get(name.lower().encode("ascii"), b"").decode("latin-1")

    async def read(self) -> bytes:
        if self._failed is not None:
            raise self._failed
        try:
            piece = await (
                self._wire.read(self._incoming) if self._inflater is None else self._inflated(self._inflater)
            )
        except ProviderFailure as failure:
            self._failed = failure
            raise
        except ValueError as reason:
            raise self._fail(FailureKind.BROKEN, str(reason)) from reason
        self._bytes_left -= len(piece)
        if self._bytes_left < 0:
            raise self._too_large()
        return piece

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        if self._inflater is not None or self._failed is not None:
            while piece := await self.read():
                if not take(piece):
                    return True
            return False

        def within(piece: bytes) -> bool:
            self._bytes_left -= len(piece)
            return self._bytes_left >= 0 and take(piece)

        try:
            more = await self._wire.pour(self._incoming, within)
        except ProviderFailure as failure:
            self._failed = failure
            raise
        if self._bytes_left < 0:
            raise self._too_large()
        return more

    async def _inflated(self, unpack: Inflater) -> bytes:
        while True:
            if self._pieces is not None and (piece := next(self._pieces, b"")):
                return piece
            packed = await self._wire.read(self._incoming)
            if not packed:
                if not unpack.ended():
                    raise ValueError("the compressed body ended half-way")
                return b""
            self._pieces = unpack.pieces(packed)

    def _too_large(self) -> ProviderFailure:
        return self._fail(FailureKind.INVALID, "the answer is larger than reply_bytes_max")

    def _fail(self, kind: FailureKind, words: str) -> ProviderFailure:
        self._failed = ProviderFailure(kind, words, sent=True, status=self.status)
        self.close()
        return self._failed

    def finish(self) -> None:
        self._wire.linger(self._incoming)

    def close(self) -> None:
        self._wire.close(self._incoming)


def head(endpoint: Endpoint, to: Place, proxy: Proxy | None, path: str) -> bytes:
    """The part of a request's head that never changes: a template for the body's length and the request's id."""
    parts = urlsplit(endpoint.base_url)
    target = quote(parts.path.rstrip("/") + path, safe="/%:@!$&'()*+,;=~-._")
    fields = {
        "host": to.host_header,
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": f"shipworthy/{__version__}",
        **{name.lower(): value for name, value in endpoint.headers.items()},
    }
    if endpoint.keepalive_ms == 0:
        fields["connection"] = "close"
    if proxy is not None and not to.tls:
        target = f"http://{to.host_header}{target}"
        if proxy.authorization:
            fields["proxy-authorization"] = proxy.authorization
    lines = [f"POST {target} HTTP/1.1"]
    lines += [f"{name}: {one_line(value).decode()}" for name, value in fields.items() if name not in OF_EACH_REQUEST]
    fixed = "\r\n".join(lines).encode("ascii").replace(b"%", b"%%")
    return fixed + b"\r\ncontent-length: %d\r\n" + REQUEST_ID.encode() + b": %b\r\n"


def one_line(value: str) -> bytes:
    """``value`` as a header carries it. Raises ValueError for what would be read as more than one, and never quotes it."""
    if not (value.isascii() and value.isprintable()):
        raise ValueError("a header's value must be printable ASCII on one line")
    return value.encode("ascii")

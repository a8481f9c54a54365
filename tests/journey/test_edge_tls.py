"""TLS at the data plane's edge: who comes in, who does not, and what the others cannot do meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import time
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop
from tests.authority import Authority, Issued
from tests.journey.edge import Client, Echo, until

from shipworthy.http.wire import bounds
from shipworthy.http.wire.answer import Answer
from shipworthy.http.wire.request import Request
from shipworthy.http.wire.server import Server
from shipworthy.http.wire.tls import server_context
from shipworthy.manifest.certificates import Certificate
from shipworthy.manifest.deployment import Tls
from shipworthy.manifest.reference import Secret

NOT_THROUGH = (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def tls_of(issued: Issued, client_ca: Path | None = None) -> Tls:
    certificate = Certificate(Secret(issued.cert.read_text()), Secret(issued.key.read_text()))
    return Tls(certificate, Secret(client_ca.read_text()) if client_ca else None)


@dataclass
class Stand:
    """A server that speaks TLS, its authority, and what it was told of."""

    server: Server
    address: tuple[str, int]
    authority: Authority
    echo: Echo
    clients: list[Client] = field(default_factory=list)

    async def connect(self, context: ssl.SSLContext | None = None) -> Client:
        context = context or self.authority.client()
        return self._known(*await asyncio.open_connection(*self.address, ssl=context))

    async def plain(self) -> Client:
        return self._known(*await asyncio.open_connection(*self.address))

    def _known(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Client:
        self.clients.append(client := Client(self.server, reader, writer))
        return client

    @property
    def handshakes(self) -> int:
        assert self.server._encryption is not None
        return len(self.server._encryption.shaking)

    @property
    def reasons(self) -> list[str]:
        return [reason for _, _, reason in self.echo.told]


@contextlib.asynccontextmanager
async def standing(
    folder: Path, *, client_ca: Path | None = None, connections_max: int = 100, authority: Authority | None = None,
    echo: Echo | None = None,
) -> AsyncIterator[Stand]:  # fmt: skip
    authority, echo = authority or Authority(folder), echo or Echo()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    tls = server_context(tls_of(authority.issue(), client_ca))
    server = Server(
        echo, lambda *fault: echo.told.append(fault), listener, connections_max, tls,
        lambda peer, reason: echo.told.append((peer, 0, reason)),
    )  # fmt: skip
    await server.start()
    try:
        stand = Stand(server, listener.getsockname(), authority, echo)
        async with asyncio.timeout(15):
            yield stand
    finally:
        for client in stand.clients:
            client.leave()
        await server.end(0.5)
        assert server.connections == 0


async def served(client: Client) -> int:
    client.send(GET)
    return (await client.answer())[0]


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_SECONDS_MAX", "HANDSHAKE_SECONDS_MAX", "UNREAD_SECONDS_MAX", "REFUSED_SECONDS_MAX"):
        monkeypatch.setattr(bounds, name, 0.3)


# ------------------------------------------------------------------------------------------- what is spoken


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_with_keys_of_the_moment(version: ssl.TLSVersion, tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as stand:
            context = stand.authority.client()
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2", "http/1.1"])
            client = await stand.connect(context)
            assert await served(client) == 200
            spoken = client.writer.get_extra_info("ssl_object")
            assert spoken.selected_alpn_protocol() == "http/1.1"
            assert spoken.compression() is None
            cipher, known_as, _ = spoken.cipher()
            assert known_as == str(version.name).replace("_", ".").replace("TLSv1.3", "TLSv1.3")
            assert "GCM" in cipher or "CHACHA20" in cipher
            assert version is ssl.TLSVersion.TLSv1_3 or cipher.startswith("ECDHE-")
            client.leave()

    uvloop.run(story())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_older_versions_are_refused(version: ssl.TLSVersion, tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as stand:
            context = stand.authority.client()
            context.minimum_version = context.maximum_version = version
            context.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.raises(ssl.SSLError, match="alert protocol version"):
                await stand.connect(context)
            await until(lambda: stand.reasons)
            assert stand.reasons == ["the client speaks only TLS before 1.2"]

    uvloop.run(story())


@pytest.mark.parametrize("ciphers", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256"])
def test_ciphers_without_a_key_of_the_moment_or_authentication_are_refused(ciphers: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as stand:
            context = stand.authority.client()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
            with pytest.raises(ssl.SSLError, match="handshake failure"):
                await stand.connect(context)
            await until(lambda: stand.reasons)
            assert stand.reasons == ["the client knows none of our ciphers"]

    uvloop.run(story())


def test_no_renegotiation(tmp_path: Path) -> None:
    """TLS 1.2 lets a client ask for it: a cheap way to have a server compute."""
    assert server_context(tls_of(Authority(tmp_path).issue())).options & ssl.OP_NO_RENEGOTIATION


# ------------------------------------------------------------------------------------------- who does not speak it


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (GET, "plain HTTP came where TLS is spoken"),
        (b"\x00" * 100, "what came is no TLS"),
        (b"\x16\x03\x01\x00\x05hello", "no TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what came is no TLS"),
        (b"\x16\x03\x01\xff\xff" + b"\x00" * 70_000, ""),
    ],
    ids=["plain HTTP", "zeros", "half a record", "ssh", "a record too long"],
)
def test_what_is_no_tls_is_closed_at_once(sent: bytes, reason: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as stand:
            client = await stand.plain()
            began = time.monotonic()
            client.send(sent)
            assert GET not in await client.rest()
            assert time.monotonic() - began < 2
            await until(lambda: stand.reasons)
            assert reason in stand.reasons[0]
            assert stand.echo.told[0][0].startswith("127.0.0.1:")
            assert stand.echo.begun == []
            assert await served(await stand.connect()) == 200

    uvloop.run(story())


def test_who_only_looks_whether_the_port_is_open_is_not_told_of(tmp_path: Path) -> None:
    """Load balancers do, every few seconds."""

    async def story() -> None:
        async with standing(tmp_path) as stand:
            for leave in ("leave", "half_close"):
                client = await stand.plain()
                getattr(client, leave)()
            await asyncio.sleep(0.1)
            assert stand.echo.told == []
            await until(lambda: stand.handshakes == 0)

    uvloop.run(story())


def hello(context: ssl.SSLContext) -> bytes:
    """The first flight of a client."""
    out = ssl.MemoryBIO()
    wrapped = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="127.0.0.1")
    with contextlib.suppress(ssl.SSLWantReadError):
        wrapped.do_handshake()
    return out.read()


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("part", ["nothing", "half a hello", "a hello and no more", "a byte at a time"])
def test_a_handshake_that_does_not_end_is_bounded(part: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as stand:
            client, first = await stand.plain(), hello(stand.authority.client())
            began = time.monotonic()
            if part == "a byte at a time":
                with contextlib.suppress(ConnectionError):
                    for byte in first * 10:
                        client.send(bytes((byte,)))
                        await client.writer.drain()
                        await asyncio.sleep(0.02)
            else:
                client.send({"nothing": b"", "half a hello": first[: len(first) // 2]}.get(part, first))
                await client.rest()
            assert 0.2 < time.monotonic() - began < 3
            await until(lambda: stand.reasons)
            assert stand.reasons == ["no TLS was agreed on in time"]

    uvloop.run(story())


@pytest.mark.parametrize("part", [0.3, 1.0])
def test_a_handshake_that_is_cut_off_leaves_nothing(part: float, tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as stand:
            for half in (True, False):
                client, first = await stand.plain(), hello(stand.authority.client())
                client.send(first[: int(len(first) * part)])
                await asyncio.sleep(0.05)
                client.half_close() if half else client.leave()
            await until(lambda: stand.handshakes == 0)
            assert stand.server.connections == 0

    uvloop.run(story())


def test_those_who_stall_keep_nobody_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The oldest handshake makes room; whoever goes on with his own is through long before."""
    monkeypatch.setattr(bounds, "HANDSHAKES_MAX", 20)

    async def story() -> None:
        async with standing(tmp_path) as stand:
            stalling = [await stand.plain() for _ in range(60)]
            await asyncio.sleep(0.1)
            assert stand.handshakes <= 20
            for client in await asyncio.gather(*(stand.connect() for _ in range(10))):
                assert await served(client) == 200
            assert await stalling[0].rest() == b""
            for client in stalling:
                client.leave()

    uvloop.run(story())


def test_handshakes_count_as_connections(tmp_path: Path) -> None:
    """A process has only so many files."""

    async def story() -> None:
        async with standing(tmp_path, connections_max=4) as stand:
            kept = [await stand.connect() for _ in range(3)]
            stalling = [await stand.plain() for _ in range(5)]
            await asyncio.sleep(0.1)
            assert stand.handshakes == 1
            kept.append(await stand.connect())
            await until(lambda: stand.server.connections == 4)
            with pytest.raises(ConnectionError):
                await stand.connect()
            for client in (*kept, *stalling):
                client.leave()

    uvloop.run(story())


# ------------------------------------------------------------------------------------------- clients' certificates


def test_a_client_with_a_certificate_of_the_authority(tmp_path: Path) -> None:
    """Whom it names is said wherever its address is."""

    async def story() -> None:
        people = Authority(tmp_path, "people")
        async with standing(tmp_path, client_ca=people.file) as stand:
            issued = people.issue("billing", host="billing.northwind.example")
            client = await stand.connect(issued.client(stand.authority))
            assert await served(client) == 200
            client.send(b"nonsense\r\n\r\n")
            assert (await client.answer())[0] == 400
            ((peer, status, _),) = stand.echo.told
            assert peer.endswith(" (billing.northwind.example)")
            assert status == 400

    uvloop.run(story())


STRANGERS = {
    "none": ("the client showed no certificate", "certificate required|handshake failure"),
    "of another authority": ("not trusted", "unknown ca"),
    "expired": ("not trusted: certificate has expired", "certificate expired"),
    "not yet valid": ("not trusted: certificate is not yet valid", "bad certificate"),
    "of a server": ("not trusted: unsuitable certificate purpose", "unsupported certificate"),
}
"""What the log says, and what the client hears."""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("who", STRANGERS)
def test_any_other_client_is_refused(who: str, version: ssl.TLSVersion, tmp_path: Path) -> None:
    """Before a byte of a request is read; both sides hear why."""
    in_the_log, heard = STRANGERS[who]
    people, others = Authority(tmp_path, "people"), Authority(tmp_path, "others")
    shown = {
        "of another authority": lambda: others.issue("x", host="x"),
        "expired": lambda: people.issue("x", from_days=-3, to_days=-1, host="x"),
        "not yet valid": lambda: people.issue("x", from_days=1, to_days=3, host="x"),
        "of a server": lambda: people.issue("x"),
    }

    async def story() -> None:
        async with standing(tmp_path, client_ca=people.file) as stand:
            context = shown[who]().client(stand.authority) if who in shown else stand.authority.client()
            context.minimum_version = context.maximum_version = version
            with pytest.raises(ssl.SSLError, match=heard):
                await served(await stand.connect(context))  # with 1.3 a client believes for a moment that it is through
            await until(lambda: stand.reasons)
            assert in_the_log in stand.reasons[0]
            assert stand.echo.begun == []

    uvloop.run(story())


# ------------------------------------------------------------------------------------------- renewal


def subject_of(client: Client) -> int:
    der = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return hash(der)


def test_a_renewed_certificate_is_for_those_who_come(tmp_path: Path) -> None:
    """Who is here stays, with what was agreed on."""

    async def story() -> None:
        async with standing(tmp_path) as stand:
            before = await stand.connect()
            assert await served(before) == 200
            stand.server.renew(server_context(tls_of(stand.authority.issue("second"))))
            after = await stand.connect()
            assert await served(after) == await served(before) == 200
            assert subject_of(before) != subject_of(after)

    uvloop.run(story())


def test_a_renewed_client_authority_is_for_those_who_come(tmp_path: Path) -> None:
    """A session of the time before opens no door either."""

    async def story() -> None:
        first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
        async with standing(tmp_path, client_ca=first.file) as stand:
            old = first.issue("old", host="old").client(stand.authority)
            new = second.issue("new", host="new").client(stand.authority)
            assert await served(await stand.connect(old)) == 200
            stand.server.renew(server_context(tls_of(stand.authority.issue(), second.file)))
            assert await served(await stand.connect(new)) == 200
            with pytest.raises(NOT_THROUGH):
                await served(await stand.connect(old))

    uvloop.run(story())


# ------------------------------------------------------------------------------------------- the end


def test_a_polite_goodbye_ends_what_runs(tmp_path: Path) -> None:
    """close_notify without a FIN: the client reads on, but it has left, as with a half-closed connection."""

    class Held(Echo):
        async def __call__(self, request: Request, answer: Answer) -> None:
            self.begun.append(request.path)
            request.when_gone = lambda: self.gone.append(request.path)
            await until(lambda: self.gone)

    async def story() -> None:
        held = Held()
        async with standing(tmp_path, echo=held) as stand:
            reader, writer = await asyncio.open_connection(*stand.address)
            inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
            spoken = stand.authority.client().wrap_bio(inward, outward, server_hostname="127.0.0.1")
            while True:
                try:
                    spoken.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outward.read())
                    inward.write(await reader.read(65_536))
            spoken.write(GET)
            writer.write(outward.read())
            await until(lambda: held.begun)
            with contextlib.suppress(ssl.SSLWantReadError):
                spoken.unwrap()
            writer.write(outward.read())
            await until(lambda: held.gone)
            await until(lambda: stand.server.connections == 0)
            inward.write(await reader.read())
            with contextlib.suppress(ssl.SSLWantReadError):
                spoken.unwrap()  # the server said goodbye too: nothing was cut off
            writer.transport.abort()

    uvloop.run(story())


def test_the_end_is_said(tmp_path: Path) -> None:
    """Whoever is closed can tell it from having been cut off."""

    async def story() -> None:
        async with standing(tmp_path) as stand:
            client = await stand.connect()
            client.send(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            assert (await client.answer())[0] == 200
            assert await client.reader.read() == b""
            await until(lambda: stand.server.connections == 0)

    uvloop.run(story())


def test_who_does_not_say_goodbye_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bounds, "KEEP_ALIVE_S", 0.2)

    async def story() -> None:
        async with standing(tmp_path) as stand:
            client = await stand.connect()
            assert await served(client) == 200
            client.stop_reading()
            await until(lambda: stand.server.connections == 0)

    uvloop.run(story())


def test_the_server_ends_with_handshakes_open(tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as stand:
            stalling = await stand.plain()
            stalling.send(hello(stand.authority.client()))
            await until(lambda: stand.handshakes == 1)
            await stand.server.end(1.0)
            await stalling.rest()
            assert stand.echo.told == []

    uvloop.run(story())


def test_a_connection_that_has_ended_is_gone_without_the_collector(tmp_path: Path) -> None:
    """Which comes rarely in a worker: half a megabyte of OpenSSL's memory would wait for it with each."""

    async def story() -> None:
        async with standing(tmp_path) as stand:
            client = await stand.connect()
            assert await served(client) == 200
            (connection,) = stand.server._shared.connections
            gone = weakref.ref(connection._transport._tls)  # type: ignore[attr-defined]
            del connection
            client.leave()
            await until(lambda: stand.server.connections == 0)
            await until(lambda: gone() is None, seconds=1)

    gc.disable()
    try:
        uvloop.run(story())
    finally:
        gc.enable()


def test_a_record_that_was_tampered_with_ends_the_connection(tmp_path: Path) -> None:
    """What runs for it is told; nothing of the record reaches the app."""

    async def story() -> None:
        async with standing(tmp_path) as stand:
            client = await stand.connect()
            assert await served(client) == 200
            with socket.socket(fileno=os.dup(client.writer.get_extra_info("socket").fileno())) as raw:
                raw.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            await until(lambda: stand.server.connections == 0)
            assert stand.echo.begun == ["/"]

    uvloop.run(story())


@pytest.mark.parametrize("size", [1, 16_384, 20 << 20])
def test_bodies_both_ways_with_a_slow_reader(size: int, tmp_path: Path) -> None:
    async def story() -> None:
        async with standing(tmp_path) as stand:
            client = await stand.connect()
            body = bytes(range(256)) * (size // 256 + 1)
            client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            client.stop_reading()
            await asyncio.sleep(0.2)
            client.read_on()
            assert (await client.answer())[2] == body

    uvloop.run(story())

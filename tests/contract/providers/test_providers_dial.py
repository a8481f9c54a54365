"""How a connection comes about: bounded and cancelled in every phase, over the address or proxy that it should."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from tests.authority import Authority
from tests.contract.providers.peers import (
    HI,
    PATH,
    Talk,
    answering,
    asked,
    hasty,
    peer,
    refused,
    transport_to,
    tunnelling,
)

from shipworthy.adapters.providers.dial import Dialler, tls_context
from shipworthy.adapters.providers.http import Endpoint, head
from shipworthy.adapters.providers.places import ADDRESSES_MAX, Addresses, Place, alternating, place
from shipworthy.adapters.providers.race import STAGGER_S, first_of
from shipworthy.adapters.providers.wire import Wire
from shipworthy.kit.calls import until
from shipworthy.kit.scripted_server import closed_port
from shipworthy.model.errors import FailureKind, ProviderFailure, StartRefused
from shipworthy.model.route import Timeouts

Play = Callable[[Awaitable[None]], None]


async def silent(talk: Talk) -> None:
    """Accepts, reads, and never says anything."""


# ------------------------------------------------------------------------------------------- bounded, and cancelled

PHASES = ["TLS", "proxy", "TLS in a tunnel", "TLS with a proxy"]


def in_phase(phase: str, url: str, authority: Authority) -> tuple[str, dict[str, object]]:
    """Where a request goes so that it stays in ``phase`` as long as the peer at ``url`` is silent."""
    encrypted = url.replace("http:", "https:")
    match phase:
        case "TLS":
            return encrypted, {}
        case "proxy":
            return "https://provider.invalid/v1", {"proxy": url.removesuffix("/v1")}
        case "TLS with a proxy":
            return "https://provider.invalid/v1", {"proxy": encrypted.removesuffix("/v1")}
    return encrypted, {}  # its proxy is added by the test


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("cancelled", [True, False])
def test_no_phase_outlasts_its_bound_or_a_cancel(phase: str, cancelled: bool, authority: Authority, play: Play) -> None:
    """Nothing was sent, and nothing stays: neither a connection at the peer nor a task here."""

    async def played() -> None:
        async with peer(silent) as seen, peer(tunnelling()) as proxy:
            before = asyncio.all_tasks()
            url, fields = in_phase(phase, seen.url, authority)
            if phase == "TLS in a tunnel":
                fields = {"proxy": proxy.url}
            transport = transport_to(url, ca_file=authority.file, **fields, **hasty(5_000, connect_ms=300))
            began_s = time.monotonic()
            waiting = asyncio.create_task(asked(transport))
            await until(lambda: len(seen.talks) == 1)
            if cancelled:
                await asyncio.sleep(0.05)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                await until(lambda: seen.open == 0 and proxy.open == 0, within_s=0.2)
            else:
                with pytest.raises(ProviderFailure, match="in time") as raised:
                    await waiting
                assert (raised.value.kind, raised.value.sent) == (FailureKind.CONNECT, False)
                assert 0.2 < time.monotonic() - began_s < 1.0
                await until(lambda: seen.open == 0 and proxy.open == 0)
            await transport.close()
            await until(lambda: len(asyncio.all_tasks() - before - {waiting}) <= len(seen.talks) + len(proxy.talks))

    play(played())


def test_a_cancel_while_a_name_is_looked_up_leaves_nothing(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for = asyncio.Event()

    async def never(self: Addresses) -> tuple[str, ...]:
        asked_for.set()
        await asyncio.Event().wait()
        return ()

    async def played() -> None:
        asked_for.clear()
        monkeypatch.setattr(Addresses, "all", never)
        transport = transport_to("http://provider.invalid/v1", **hasty(5_000, connect_ms=100))
        assert "in time" in (await refused(transport)).detail
        waiting = asyncio.create_task(asked(transport))
        await asked_for.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await transport.close()

    play(played())


# ------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize("first", ["refuses", "swallows"])
def test_the_next_address_is_tried(first: str, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of which one address is dead costs a moment, not the request; and both attempts are one request."""

    async def played() -> None:
        async with peer(answering(HI)) as seen:
            with socket.socket() as full:
                full.bind(("127.0.0.9", seen.port))
                stuffed = []
                if first == "swallows":
                    full.listen(0)
                    stuffed = [socket.socket() for _ in range(4)]
                    for sock in stuffed:
                        sock.setblocking(False)
                        sock.connect_ex(full.getsockname())

                async def both(self: Addresses) -> tuple[str, ...]:
                    return ("127.0.0.9", "127.0.0.1")

                monkeypatch.setattr(Addresses, "all", both)
                transport = transport_to(f"http://provider.invalid:{seen.port}/v1")
                began_s = time.monotonic()
                assert await asked(transport) == (200, b"hi")
                assert time.monotonic() - began_s < STAGGER_S + 0.5
                assert len(seen.talks) == 1
                await transport.close()
                for sock in stuffed:
                    sock.close()

    play(played())


def test_no_address_answers(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dead(self: Addresses) -> tuple[str, ...]:
        return ("127.0.0.8", "127.0.0.9")

    async def played() -> None:
        monkeypatch.setattr(Addresses, "all", dead)
        transport = transport_to(f"http://provider.invalid:{closed_port()}/v1")
        assert (await refused(transport)).detail.startswith("no connection (")
        await transport.close()

    play(played())


def test_names_are_asked_for_once_in_a_while() -> None:
    """Also by many at once; anew when no address answered."""
    questions = 0

    async def played() -> None:
        nonlocal questions
        loop = asyncio.get_running_loop()

        async def answer(*_: object, **__: object) -> list[tuple[object, ...]]:
            nonlocal questions
            questions += 1
            await asyncio.sleep(0.01)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]

        loop.getaddrinfo = answer  # type: ignore[method-assign, assignment]
        addresses = Addresses("provider.example", 80)
        heard = await asyncio.gather(*(addresses.all() for _ in range(50)))
        assert set(heard) == {("192.0.2.1",)}
        assert questions == 1
        addresses.forget()
        await addresses.all()
        assert questions == 2

    asyncio.run(played())


def test_families_take_turns() -> None:
    assert alternating(["::1", "::2", "::2", "10.0.0.1"]) == ("::1", "10.0.0.1", "::2")
    assert alternating(["10.0.0.1", "::1"]) == ("10.0.0.1", "::1")
    assert alternating([]) == ()
    assert len(alternating([f"10.0.0.{n}" for n in range(50)])) == ADDRESSES_MAX


class Prize:
    def __init__(self, way: str) -> None:
        self.way = way
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_a_race_has_one_winner_and_gives_up_all_others(play: Play) -> None:
    """Also one that comes in at the same moment, or after a cancel."""
    made: list[Prize] = []

    async def attempt(way: str) -> Prize:
        with suppress(asyncio.CancelledError):  # too late: it is connected all the same
            await asyncio.sleep(float(way))
        made.append(Prize(way))
        return made[-1]

    async def played() -> None:
        made.clear()
        prize = await first_of([str(STAGGER_S + 0.2), "0.05", "9"], attempt)
        assert (prize.way, prize.aborted) == ("0.05", False)
        await until(lambda: sorted(other.aborted for other in made) == [False, True])
        made.clear()
        waiting = asyncio.ensure_future(first_of(["9", "8"], attempt))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: [prize.aborted for prize in made] == [True])

    play(played())


# ------------------------------------------------------------------------------------------- TLS


def test_old_tls_is_not_spoken(authority: Authority, play: Play) -> None:
    context = authority.server()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert context.maximum_version is ssl.TLSVersion.TLSv1_2

    async def played() -> None:
        async with peer(answering(HI), context) as seen:
            transport = transport_to(seen.url, ca_file=authority.file)
            assert await asked(transport) == (200, b"hi")  # 1.2 is
            await transport.close()

    play(played())
    ours = tls_context(authority.file)
    assert ours.minimum_version is ssl.TLSVersion.TLSv1_2
    assert (ours.verify_mode, ours.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_what_tls_says_of_itself_is_no_reason_to_hang_up(
    authority: Authority, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server hands out session tickets after the handshake. Unread, they look like bytes that nobody asked for."""
    context, accepted = authority.server(), 0

    def serve(listener: socket.socket) -> None:
        nonlocal accepted
        with suppress(OSError):
            while True:
                plain, _ = listener.accept()
                accepted += 1
                with context.wrap_socket(plain, server_side=True) as talk:
                    talk.recv(65_536)
                    talk.sendall(HI)

    dial = Dialler.dial

    async def stalled(self: Dialler, made: Callable[[], Wire]) -> Wire:
        wire = await dial(self, made)
        time.sleep(0.1)  # the loop is busy elsewhere while the tickets come
        return wire

    async def played() -> None:
        nonlocal accepted
        accepted = 0
        listener = socket.create_server(("127.0.0.1", 0))
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        try:
            url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
            transport = transport_to(url, ca_file=authority.file)
            assert await asked(transport) == (200, b"hi")
            assert accepted == 1
            await transport.close()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            await asyncio.to_thread(server.join)

    monkeypatch.setattr(Dialler, "dial", stalled)
    play(played())


# ------------------------------------------------------------------------------------------- addresses as they are written


@pytest.mark.parametrize(
    ("url", "wanted", "host"),
    [
        ("http://a.example/v1", Place("a.example", 80, False), "a.example"),
        ("https://a.example:8443", Place("a.example", 8443, True), "a.example:8443"),
        ("https://a.example:443/v1", Place("a.example", 443, True), "a.example"),
        ("http://[::1]:8000/v1", Place("::1", 8000, False), "[::1]:8000"),
        ("https://bücher.example/v1", Place("xn--bcher-kva.example", 443, True), "xn--bcher-kva.example"),
    ],
)
def test_a_place_is_read_out_of_an_address(url: str, wanted: Place, host: str) -> None:
    assert place(url, "provider.base_url") == wanted
    assert wanted.host_header == host


@pytest.mark.parametrize(
    "url",
    [
        "socks5://proxy:1",
        "proxy:1",
        "http://",
        "http://u:secret@host:99999",
        "http://u:secret@host:x",
        "http://a..b/v1",
    ],
)
def test_an_address_that_cannot_be_used_stops_the_start(url: str) -> None:
    with pytest.raises(StartRefused) as refusal:
        transport_to("http://provider.invalid/v1", proxy=url)
    assert refusal.value.code == "provider.proxy"
    assert "secret" not in str(refusal.value)


def test_a_head_is_written_once() -> None:
    """Every octet that needs it is quoted; what belongs to one request cannot be a fixed header."""
    endpoint = Endpoint(
        "http://a.example/a b/100%/v1/", {"X-Team": "50%", "traceparent": "no", "X-Client-Request-Id": "no"},
        Timeouts(), 1_000, 1_000, 1_000,
    )  # fmt: skip
    said = head(endpoint, place(endpoint.base_url, "x"), None, PATH) % (7, b"id-1")
    assert said.startswith(b"POST /a%20b/100%/v1/chat/completions HTTP/1.1\r\nhost: a.example\r\n")
    assert said.endswith(b"\r\nx-team: 50%\r\ncontent-length: 7\r\nx-client-request-id: id-1\r\n")
    assert b"no" not in said

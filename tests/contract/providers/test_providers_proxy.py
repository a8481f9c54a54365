"""Through a proxy: nothing is sent unless it opens the way, and it sees neither key nor body of who is encrypted."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable

import pytest
from tests.authority import Authority
from tests.contract.providers.peers import HI, Talk, answering, asked, peer, refused, transport_to, tunnelling

from shipworthy.kit.calls import until
from shipworthy.kit.scripted_server import closed_port

Play = Callable[[Awaitable[None]], None]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Who\r\ncontent-length: 0\r\n\r\n", "status 407"),
        (b"HTTP/1.1 502 Bad\r\ncontent-length: 3\r\n\r\nbad", "status 502"),
        (b"HTTP/1.1 302 There\r\nlocation: /x\r\n\r\n", "status 302"),
        (b"HTTP/1.1 200 OK\r\n\r\nforged", "more than"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged", "more than"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "not HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, "not HTTP"),
        (b"", "closed"),
    ],
    ids=["407", "502", "302", "more", "body", "101", "no HTTP", "endless", "closes"],
)
def test_a_proxy_that_does_not_open_the_way_is_not_sent_anything(
    answer: bytes, words: str, authority: Authority, play: Play
) -> None:
    async def serve(talk: Talk) -> None:
        await talk.request()
        await talk.say(answer)
        if not answer:
            talk.writer.close()

    async def played() -> None:
        async with peer(serve) as proxy:
            transport = transport_to("https://provider.invalid/v1", proxy=proxy.url, ca_file=authority.file)
            assert words in (await refused(transport)).detail
            await until(lambda: proxy.open == 0)
            await transport.close()

    play(played())


@pytest.mark.parametrize("url", ["http://provider.invalid/v1", "https://provider.invalid/v1"])
def test_a_proxy_that_is_not_there_is_named(url: str, play: Play) -> None:
    async def played() -> None:
        transport = transport_to(url, proxy=f"http://user:secret@127.0.0.1:{closed_port()}")
        failure = await refused(transport)
        assert "the proxy cannot be reached" in failure.detail
        assert "secret" not in failure.detail
        await transport.close()

    play(played())


@pytest.mark.parametrize("encrypted_proxy", [True, False])
def test_through_a_tunnel_the_connection_is_kept_and_the_provider_verified(
    encrypted_proxy: bool, authority: Authority, play: Play
) -> None:
    """One CONNECT for many requests; and the certificate is the provider's, whatever the proxy says."""
    connects: list[bytes] = []

    async def played() -> None:
        connects.clear()
        tls = authority.server()
        async with (
            peer(answering(HI), tls) as seen,
            peer(tunnelling(seen=connects), tls if encrypted_proxy else None) as proxy,
        ):
            at = proxy.url.removesuffix("/v1").replace("://", "://us%20er:p%40ss@")
            transport = transport_to(seen.url, proxy=at, ca_file=authority.file)
            for _ in range(3):
                assert await asked(transport) == (200, b"hi")
            assert len(connects) == 1
            credentials = base64.b64encode(b"us er:p@ss")
            assert b"\r\nproxy-authorization: Basic " + credentials + b"\r\n" in connects[0]
            assert connects[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nhost: 127.0.0.1:" % seen.port)
            await transport.close()
            await until(lambda: proxy.open == 0)
            if not encrypted_proxy:
                stranger = transport_to(seen.url, proxy=at)
                assert "certificate" in (await refused(stranger)).detail
                await stranger.close()
                await until(lambda: proxy.open == 0)

    play(played())


def test_a_plain_provider_behind_a_proxy_is_asked_for_by_its_whole_address(play: Play) -> None:
    requests: list[bytes] = []

    async def played() -> None:
        requests.clear()
        async with peer(answering(HI, seen=requests)) as proxy:
            transport = transport_to("http://provider.invalid:8000/v1", proxy=proxy.url.replace("://", "://u:p@"))
            for _ in range(2):
                assert await asked(transport) == (200, b"hi")
            assert len(proxy.talks) == 1
            assert requests[0].startswith(b"POST http://provider.invalid:8000/v1/chat/completions HTTP/1.1\r\n")
            assert b"\r\nhost: provider.invalid:8000\r\n" in requests[0]
            assert b"\r\nproxy-authorization: Basic dTpw\r\n" in requests[0]
            await transport.close()

    play(played())

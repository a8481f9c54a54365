"""Providers that ask us for a certificate: it is shown to them and to nobody else; one that will not do is told in words."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.authority import Authority, Issued

from shipworthy.adapters.providers.openai_compatible import CompatibleConfig
from shipworthy.adapters.providers.upstream import HttpUpstream
from shipworthy.kit.calls import Bench, a_chat, said
from shipworthy.kit.scripted_log import Log
from shipworthy.kit.scripted_server import ScriptedServer
from shipworthy.manifest.reference import Resolver
from shipworthy.manifest.specs import Secret
from shipworthy.model.errors import FailureKind, ProviderFailure

Play = Callable[[Awaitable[None]], None]
Built = Callable[..., HttpUpstream]
KIND = "openai-compatible"


@pytest.fixture
def gateways(tmp_path: Path) -> Authority:
    """Whose certificates the provider asks for."""
    return Authority(tmp_path, "gateways")


def asking(
    authority: Authority, gateways: Authority, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    context = authority.server()
    context.load_verify_locations(gateways.file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    return context


def shown(issued: Issued) -> dict[str, object]:
    return {
        "client_cert": Secret(issued.cert.read_text(), "file cert"),
        "client_key": Secret(issued.key.read_text(), "file key"),
    }


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_our_certificate_is_shown_and_the_connection_is_kept(
    version: ssl.TLSVersion, authority: Authority, gateways: Authority, built: Built, play: Play
) -> None:
    async def played() -> None:
        async with ScriptedServer(tls=asking(authority, gateways, version)) as server:
            mine = shown(gateways.issue("gateway", host="gateway"))
            upstream = built(KIND, server.base_url, ca_file=str(authority.file), **mine)
            for _ in range(3):
                assert said(await Bench(upstream, server.log).all(a_chat(stream=True))).endswith("Good morning.")
                await asyncio.sleep(0.02)  # for the stream's end, which nobody waits for
            assert server.connections_made == 1
            await upstream.close()

    play(played())


WORDS = {
    "none": "certificate required|handshake failure",
    "of another authority": "unknown ca",
    "expired": "certificate expired",
}


@contextmanager
def answering_with_alerts(context: ssl.SSLContext) -> Iterator[str]:
    """A server such as most are: it says why it does not go on (asyncio's does not)."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(5)
                context.wrap_socket(connection, server_side=True).close()
                refused.append("served")
            refused.append("refused")

    refused: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert set(refused) == {"refused"}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("who", WORDS)
def test_a_provider_that_does_not_take_it_fails_in_words(
    who: str,
    version: ssl.TLSVersion,
    authority: Authority,
    gateways: Authority,
    built: Built,
    play: Play,
    tmp_path: Path,
) -> None:
    """With TLS 1.3 it says so only after we believe to be through; nothing was sent all the same: another try is free."""
    ours = {
        "of another authority": lambda: shown(Authority(tmp_path, "other").issue("x", host="x")),
        "expired": lambda: shown(gateways.issue("x", from_days=-3, to_days=-1, host="x")),
    }

    async def played() -> None:
        mine = ours[who]() if who in ours else {}
        with answering_with_alerts(asking(authority, gateways, version)) as address:
            upstream = built(KIND, address, ca_file=str(authority.file), **mine)
            words = f"(?i){WORDS[who].replace(' ', '[ _]')}"
            if version is ssl.TLSVersion.TLSv1_3:  # and it may be gone before we have heard anything
                words += "|closed before the request"
            with pytest.raises(ProviderFailure, match=words) as raised:
                await Bench(upstream, Log()).all(a_chat())
            assert (raised.value.kind, raised.value.sent) == (FailureKind.CONNECT, False)
            await upstream.close()

    play(played())


def test_a_proxy_is_shown_nothing(authority: Authority, gateways: Authority, built: Built, play: Play) -> None:
    """An encrypted proxy may ask; our certificate is for the provider behind it."""
    seen: list[object] = []
    asks = asking(authority, gateways)
    asks.verify_mode = ssl.CERT_OPTIONAL

    async def played() -> None:
        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(writer.get_extra_info("peercert"))
            await reader.readuntil(b"\r\n\r\n")
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

        async with ScriptedServer(tls=asking(authority, gateways)) as server:
            proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0, ssl=asks)
            address = Secret(f"https://127.0.0.1:{proxy.sockets[0].getsockname()[1]}", "env PROXY")
            mine = shown(gateways.issue("gateway", host="gateway"))
            upstream = built(KIND, server.base_url, ca_file=str(authority.file), proxy=address, **mine)
            assert said(await Bench(upstream, server.log).all(a_chat(stream=True))).endswith("Good morning.")
            await upstream.close()
            proxy.close()
        assert seen == [{}] or seen == [None]

    play(played())


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, ssl.SSLError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
    writer.close()


def config(**settings: object) -> CompatibleConfig:
    said = {"base_url": "https://provider.example/v1", **settings}
    return CompatibleConfig.model_validate(said, context=Resolver(Path("/"), {}))


def test_what_cannot_be_shown_is_a_problem_of_the_manifest(gateways: Authority) -> None:
    one, other = shown(gateways.issue("one", host="one")), shown(gateways.issue("two", host="two"))
    config(**one)
    with pytest.raises(ValidationError, match="client_key: the key does not belong to the certificate"):
        config(client_cert=one["client_cert"], client_key=other["client_key"])
    with pytest.raises(ValidationError, match="go together"):
        config(client_cert=one["client_cert"])
    with pytest.raises(ValidationError, match="over https only"):
        config(base_url="http://provider.example/v1", **one)


def test_neither_prints(gateways: Authority) -> None:
    issued = gateways.issue("one", host="one")
    key = issued.key.read_text().splitlines()[1]
    assert key not in repr(config(**shown(issued)))
    assert key not in repr(config(**shown(issued)).endpoint("https://x/v1", None, None))  # type: ignore[arg-type]

"""TLS on real sockets: certificates and names are always verified, and cancelling is as safe as without."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.authority import Authority

from shipworthy.adapters.providers.upstream import HttpUpstream
from shipworthy.kit.calls import Bench, a_chat, an_op, fitted, said, until
from shipworthy.kit.scripted_config import Line, ScriptedConfig
from shipworthy.kit.scripted_log import Ended, Log
from shipworthy.kit.scripted_server import ScriptedServer
from shipworthy.manifest.specs import Secret
from shipworthy.model.errors import FailureKind, ProviderFailure, StartRefused

Play = Callable[[Awaitable[None]], None]
Built = Callable[..., HttpUpstream]
KIND = "openai-compatible"


def test_a_trusted_certificate_serves_and_its_connection_is_kept(
    authority: Authority, built: Built, play: Play
) -> None:
    async def played() -> None:
        async with ScriptedServer(tls=authority.server()) as server:
            upstream = built(KIND, server.base_url, ca_file=str(authority.file))
            for _ in range(3):
                assert said(await Bench(upstream, server.log).all(a_chat(stream=True))).endswith("Good morning.")
            assert server.connections_made == 1
            await upstream.close()

    play(played())


@pytest.mark.parametrize(
    ("certificate", "trusted"),
    [({}, False), ({"address": "127.0.0.2"}, True), ({"from_days": -3, "to_days": -1}, True)],
    ids=["unknown authority", "other name", "expired"],
)
def test_any_other_certificate_is_refused_before_anything_is_sent(
    certificate: dict[str, object], trusted: bool, authority: Authority, built: Built, play: Play
) -> None:
    async def played() -> None:
        async with ScriptedServer(tls=authority.server(**certificate)) as server:  # type: ignore[arg-type]
            upstream = built(KIND, server.base_url, **({"ca_file": str(authority.file)} if trusted else {}))
            with pytest.raises(ProviderFailure, match="certificate") as raised:
                await Bench(upstream, Log()).all(a_chat())
            assert (raised.value.kind, raised.value.sent) == (FailureKind.CONNECT, False)
            assert server.log.received == 0
            await upstream.close()

    play(played())


def test_a_plain_server_is_not_taken_for_an_encrypted_one(built: Built, play: Play) -> None:
    async def played() -> None:
        async with ScriptedServer() as server:
            upstream = built(KIND, server.base_url.replace("http:", "https:"))
            with pytest.raises(ProviderFailure) as raised:
                await Bench(upstream, Log()).all(a_chat())
            assert (raised.value.kind, raised.value.sent) == (FailureKind.CONNECT, False)
            assert server.log.received == 0
            await upstream.close()

    play(played())


@pytest.mark.parametrize("fault", ["hang", "hang-midway"])
def test_a_cancel_reaches_the_provider_at_once(fault: str, authority: Authority, built: Built, play: Play) -> None:
    """No polite end of the encryption is waited for."""

    async def played() -> None:
        script = ScriptedConfig(script=(Line.model_validate({"fault": fault}),))
        async with ScriptedServer(script, tls=authority.server()) as server:
            upstream = built(KIND, server.base_url, ca_file=str(authority.file))
            waiting = asyncio.create_task(Bench(upstream, Log()).all(a_chat(stream=True)))
            await until(lambda: server.log.received == 1)
            await asyncio.sleep(0.03)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until(lambda: server.log[0].ended is Ended.CLIENT_LEFT, within_s=0.1)
            await upstream.close()

    play(played())


def test_a_kept_connection_that_was_closed_is_noticed(authority: Authority, built: Built, play: Play) -> None:
    async def played() -> None:
        async with ScriptedServer(tls=authority.server()) as server:
            upstream = built(KIND, server.base_url, ca_file=str(authority.file))
            b = Bench(upstream, server.log)
            for number in range(5):
                await b.all(a_chat(f"number {number}"))
                server.hang_up()
                events = await upstream.open(an_op(), b.model, a_chat(), fitted(a_chat()))
                await anext(events)
                await events.aclose()
            assert server.log.received == 10
            await upstream.close()

    play(played())


def test_an_authority_that_cannot_be_read_stops_the_start(built: Built, tmp_path: Path) -> None:
    """With the path and what to do, not with a traceback at the first request."""
    with pytest.raises(StartRefused, match="No such file"):
        built(KIND, "https://provider.example/v1", ca_file=str(tmp_path / "missing.pem"))
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(StartRefused, match=r"empty\.pem cannot be used"):
        built(KIND, "https://provider.example/v1", ca_file=str(tmp_path / "empty.pem"))


def test_an_encrypted_provider_is_reached_through_a_proxy(authority: Authority, built: Built, play: Play) -> None:
    """The proxy gets a tunnel and its own credentials; it sees neither the key nor a body."""
    seen: list[bytes] = []

    async def played() -> None:
        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

        async with ScriptedServer(tls=authority.server()) as server:
            proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
            address = f"http://user:pass@127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
            upstream = built(KIND, server.base_url, ca_file=str(authority.file), proxy=Secret(address, "env PROXY"))
            assert said(await Bench(upstream, server.log).all(a_chat(stream=True))).endswith("Good morning.")
            await upstream.close()
            proxy.close()
            await until(lambda: not server.connections)
        assert seen[0].startswith(b"CONNECT 127.0.0.1:")
        assert b"proxy-authorization: basic" in seen[0].lower()

    play(played())


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            seen_by_proxy(chunk)
            writer.write(chunk)
    writer.close()


def seen_by_proxy(chunk: bytes) -> None:
    assert b"Good morning." not in chunk

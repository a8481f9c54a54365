"""Benches for the providers' suites: one implementation of Upstream each, with its script behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from tests.authority import Authority

from shipworthy.adapters.providers import llama_cpp, openai, openai_compatible
from shipworthy.adapters.providers.upstream import HttpUpstream
from shipworthy.kit import scripted
from shipworthy.kit.calls import TIMEOUTS, Bench, a_provider, until
from shipworthy.kit.scripted_config import ScriptedConfig
from shipworthy.kit.scripted_server import ScriptedServer
from shipworthy.manifest.reference import Resolver
from shipworthy.manifest.specs import Secret
from shipworthy.model.route import Timeouts

HERE = Resolver(Path("/"), {})
KEY = "corp-key-0123456789"


def built(kind: str, base_url: str, timeouts: Timeouts = TIMEOUTS, **settings: object) -> HttpUpstream:
    match kind:
        case "openai":
            config = openai.OpenAIConfig.model_validate(
                {"credentials": Secret(KEY), "base_url": base_url, **settings}, context=HERE
            )
            return openai.build(a_provider(kind, config, timeouts))
        case "openai-compatible":
            plain = openai_compatible.CompatibleConfig.model_validate({"base_url": base_url, **settings}, context=HERE)
            return openai_compatible.build(a_provider(kind, plain, timeouts))
        case _:
            provider = a_provider(kind, llama_cpp.LlamaCppConfig(), timeouts)
            return llama_cpp.build(provider, base_url=base_url, api_key=KEY)


@asynccontextmanager
async def bench(
    kind: str, config: ScriptedConfig | None = None, timeouts: Timeouts = TIMEOUTS, **settings: object
) -> AsyncIterator[Bench]:
    """Ends with the proof that no task and no connection stayed."""
    before = asyncio.all_tasks()
    if kind == "scripted":
        inside = scripted.build(a_provider(kind, config or ScriptedConfig(), timeouts))
        try:
            yield Bench(inside, inside.log)
        finally:
            await inside.close()
    else:
        async with ScriptedServer(config) as server:
            upstream = built(kind, server.base_url, timeouts, **settings)
            try:
                yield Bench(upstream, server.log, server)
            finally:
                await upstream.close()
            await until(lambda: not server.connections)
    await until(lambda: asyncio.all_tasks() == before)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs for what a suite serves; its files stand in ``tmp_path``."""
    return Authority(tmp_path)


@pytest.fixture(name="bench")
def bench_fixture() -> Callable[..., AbstractAsyncContextManager[Bench]]:
    """``bench(kind, script, timeouts, **settings)``, an asynchronous context."""
    return bench


@pytest.fixture(name="built")
def built_fixture() -> Callable[..., HttpUpstream]:
    """``built(kind, base_url, timeouts, **settings)``."""
    return built


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    """Runs a coroutine on one of the loops that the server may use."""

    def run(played: Awaitable[None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await played

        with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as runner:
            runner.run(bounded())

    return run

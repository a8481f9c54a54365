"""The local model: llama.cpp in one supervised child process, reached like any other OpenAI-compatible provider.

`start` returns when the model answers; `poll`, called every 200 ms or so by the supervisor, starts a dead child again on
the same port with the same key, so that what the workers know stays true. Nothing here waits but `start` and `stop`.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from shipworthy.adapters.embedded import llama_framing as framing
from shipworthy.adapters.embedded.llama_child import Order, Report
from shipworthy.adapters.embedded.llama_errors import (
    LESS_MEMORY,
    ExtraMissing,
    LoadTimeout,
    LocalModelError,
    MemoryShort,
    death,
)
from shipworthy.adapters.embedded.llama_gguf import GgufHeader, read_header
from shipworthy.adapters.embedded.llama_process import LlamaProcess
from shipworthy.adapters.embedded.llama_weights import MODEL_NAME, Progress, bundled_model

Phase = Literal["stopped", "loading", "ready", "waiting", "failed"]

START_LOOK_SECONDS = 0.05
PROGRESS_EVERY_SECONDS = 2.0
BACKOFF_SECONDS_FIRST = 0.1
BACKOFF_SECONDS_MAX = 10.0
DEATHS_MAX = 10  # in a row, none of them after STEADY_SECONDS of service
STEADY_SECONDS = 60.0
CONTEXT_TOKENS_DEFAULT = 4096
BOUNDS = {
    "context_tokens": (256, 1_048_576),
    "threads": (0, 512),
    "parallel": (1, 64),
    "output_tokens_max": (1, 1_048_576),
}


@dataclass(frozen=True)
class LlamaSettings:
    """Which model, and how much of the machine it may use.

    ``share_prefixes`` keeps what was computed for the beginning of one prompt for the next that begins alike. That is
    faster, and lets a caller see from speed and `cached_tokens` that somebody sent the same beginning before; so it is
    off unless one tenant has the model for itself.
    """

    path: Path | None = None  # None: the bundled small base model
    framing: framing.Framing = "auto"
    context_tokens: int = CONTEXT_TOKENS_DEFAULT  # of one request; never more than the model was trained for
    threads: int = 0  # 0: all cores but one
    parallel: int = 2  # requests answered at once; more of them wait
    output_tokens_max: int = 512  # for a request that names no limit
    embeddings: bool = False  # serve /v1/embeddings too
    share_prefixes: bool = False
    load_seconds_max: float = 900.0
    cache: Path | None = None  # where the bundled model is put together; None: the account's cache directory

    def __post_init__(self) -> None:
        for name, (least, most) in BOUNDS.items():
            said = getattr(self, name)
            if not least <= said <= most:
                raise ValueError(f"{name} is {said}; wanted: {least} to {most}")


@dataclass(frozen=True)
class Endpoint:
    """Where the model answers. It closes a connection after each stream, so connections must not be reused."""

    base_url: str
    api_key: str = field(repr=False)
    default_stop: tuple[str, ...]  # applied to a request without `stop`; to be added to one that has its own
    upstream_model: str
    framing: framing.Framed
    context_tokens: int
    reuse_connections: bool = False


@dataclass(frozen=True)
class State:
    """How the child is: ``deaths`` counts those in a row, ``reason`` tells the last one."""

    phase: Phase
    pid: int | None
    deaths: int
    restarts: int
    reason: LocalModelError | None


class LlamaChild:
    """Runs one model in one child process; used from one thread."""

    def __init__(
        self, settings: LlamaSettings, *, progress: Progress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._progress = progress
        self._clock = clock
        self._key = secrets.token_urlsafe(32)
        self._port = 0
        self._phase: Phase = "stopped"
        self._since = 0.0  # when the phase began; in "waiting", when it ends
        self._deaths = 0
        self._restarts = 0
        self._reason: LocalModelError | None = None
        self._process: LlamaProcess | None = None
        self._order: Order | None = None
        self._framed: framing.Framed = "chat"

    def start(self) -> Endpoint:
        """Load the model and return where it answers; LocalModelError when it can't, with nothing left running."""
        assert self._phase == "stopped", "started already"
        path = self._settings.path or bundled_model(self._settings.cache, self._progress)
        self._order = self._plan(path, read_header(path))
        self._spawn(self._order)
        try:
            return self._await_ready(self._order)
        except BaseException:  # also Ctrl-C while a model loads: no child may be left behind
            self.stop()
            raise

    def poll(self) -> State:
        """Take notice of what happened to the child, and start it again when it is due; never waits for a load."""
        assert self._order is not None or self._phase == "stopped"
        if self._process is not None and self._order is not None:
            self._notice(self._process, self._order)
        elif self._phase == "waiting" and self._order is not None and self._clock() >= self._since:
            self._restarts += 1
            self._spawn(self._order)
        return State(
            self._phase, self._process.pid if self._process else None, self._deaths, self._restarts, self._reason
        )

    def restart(self) -> None:
        """End the child and start it anew at once, however often it died before; poll() tells when it is ready."""
        assert self._order is not None, "never started"
        self._bury()
        self._deaths, self._reason = 0, None
        self._restarts += 1
        self._spawn(self._order)

    def stop(self) -> None:
        """End the child; afterwards start() may be called again, and keeps port and key."""
        self._bury()
        self._enter("stopped")

    def _plan(self, path: Path, header: GgufHeader) -> Order:
        settings = self._settings
        self._framed = framing.choose(settings.framing, has_chat_template=header.has_chat_template)
        few_shot = self._framed == "few-shot"
        context = min(settings.context_tokens, header.context_tokens or settings.context_tokens)
        return Order(
            parent=os.getpid(),
            model=str(path.absolute()),
            alias=MODEL_NAME if settings.path is None else path.stem,
            api_key=self._key,
            port=self._port,
            context_tokens=context,
            parallel=settings.parallel,
            threads=settings.threads or _cores_but_one(),
            output_tokens_max=settings.output_tokens_max,
            memory_bytes=header.weight_bytes + header.memory_bytes_per_token * context * settings.parallel,
            chat_template=framing.FEW_SHOT_TEMPLATE if few_shot else "",
            stop=framing.STOP if few_shot else (),
            embeddings=settings.embeddings,
            mean_pooling=settings.embeddings and not header.has_pooling,
            share_prefixes=settings.share_prefixes,
        )

    def _spawn(self, order: Order) -> None:
        assert self._process is None
        self._process = LlamaProcess(order)
        self._enter("loading")

    def _await_ready(self, order: Order) -> Endpoint:
        told = self._since
        while (state := self.poll()).phase == "loading":
            if self._clock() - told >= PROGRESS_EVERY_SECONDS:
                told = self._clock()
                self._progress(f"Loading {order.alias}: {told - self._since:.0f} s")
            time.sleep(START_LOOK_SECONDS)
        if state.phase != "ready":
            assert state.reason is not None
            raise state.reason
        return Endpoint(
            base_url=f"http://127.0.0.1:{self._port}/v1",
            api_key=order.api_key,
            default_stop=order.stop,
            upstream_model=order.alias,
            framing=self._framed,
            context_tokens=order.context_tokens,
        )

    def _notice(self, process: LlamaProcess, order: Order) -> None:
        loading = self._phase == "loading"
        status = process.listen()
        if status is not None:
            self._died(
                self._cause(process.report if loading else None, status, process.last_lines, order, loading=loading)
            )
        elif loading and process.report is not None and process.report.port:
            self._remember_port(process.report.port, order)
            self._enter("ready")
        elif loading and self._clock() - self._since > self._settings.load_seconds_max:
            self._died(
                LoadTimeout(
                    f"{order.model}: not loaded within {self._settings.load_seconds_max:.0f} s.",
                    "Choose a smaller model, a faster disk, or raise load_seconds_max.",
                )
            )

    def _remember_port(self, port: int, order: Order) -> None:
        assert order.port in (0, port)
        self._port = port
        self._order = replace(order, port=port)

    def _cause(
        self, report: Report | None, status: int, last_lines: tuple[str, ...], order: Order, *, loading: bool
    ) -> LocalModelError:
        if report is not None and report.missing:
            return ExtraMissing(report.missing)
        if report is not None and report.memory_available:
            return MemoryShort(
                f"{order.model} needs at least {_gigabytes(order.memory_bytes)} of memory,"
                f" and {_gigabytes(report.memory_available)} are available.",
                LESS_MEMORY,
            )
        return death(order.model, status, last_lines, loading=loading)

    def _died(self, reason: LocalModelError) -> None:
        """Bury the child and say when the next one is due: at once after steady service, later and later otherwise."""
        steady = self._phase == "ready" and self._clock() - self._since >= STEADY_SECONDS
        self._bury()
        self._deaths = 1 if steady else self._deaths + 1
        self._reason = reason
        if self._deaths >= DEATHS_MAX:
            self._enter("failed")
            return
        self._enter("waiting")
        self._since += min(BACKOFF_SECONDS_FIRST * 2 ** (self._deaths - 1), BACKOFF_SECONDS_MAX)

    def _bury(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._since = self._clock()


def _cores_but_one() -> int:
    # The gateway needs the other one, and a thread of llama.cpp that must share its core holds all others up: with one
    # of two cores busy, two threads generate half as fast as one.
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"

"""A whole server for journey tests: supervisor, workers and control plane as real processes, one scripted provider."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

import httpx2 as httpx
import psycopg
from psycopg.rows import dict_row

from shipworthy.adapters.identity.development import DevelopmentIssuer
from shipworthy.bootstrap import development_issuer, read_manifest, store_urls
from shipworthy.kit.scripted_config import ScriptedConfig
from shipworthy.kit.scripted_server import ScriptedServer
from shipworthy.model.op import uuid7
from shipworthy.ports import TokenWish

READY_S = 30.0

MANIFEST = Template(Path(__file__).with_suffix(".yaml").read_text())
PROVIDER_KEY = "provider-key-that-only-the-upstream-sees"


class Providers:
    """Two scripted providers on a loop of their own, in a thread."""

    def __init__(self, first: ScriptedConfig, second: ScriptedConfig) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.first = ScriptedServer(first)
        self.second = ScriptedServer(second)
        for server in (self.first, self.second):
            self._run(server.start())

    def stop(self) -> None:
        for server in (self.first, self.second):
            self._run(server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


class Deployment:
    """The running server; ``log`` is everything that its processes said."""

    def __init__(self, folder: Path, providers: Providers, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.config = folder / "shipworthy.yaml"
        self.providers = providers
        self.process = process
        self.base = ""
        self.admin = ""
        self._issuer: DevelopmentIssuer | None = None
        self._store_url = ""

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def await_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            for line in (self.folder / "out.log").read_text().splitlines():
                if line.startswith("serving at "):
                    _, _, base, _, _, _, _, admin = line.split()
                    self.base, self.admin = base.removesuffix("/v1"), admin.removesuffix("/console")
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the server did not come up:\n{self.log}\n{(self.folder / 'out.log').read_text()}")

    def token(
        self,
        tenant: str = "acme",
        subject: str = "ada",
        groups: tuple[str, ...] = ("agents",),
        *,
        ttl_s: int = 3600,
        age_s: int = 0,
        **more: Any,
    ) -> str:
        """A token of the development issuer, minted ``age_s`` ago."""
        if self._issuer is None:
            self._issuer = development_issuer(read_manifest(self.config))
            assert self._issuer is not None
        wish = TokenWish(tenant=tenant, subject=subject, groups=groups, ttl_s=ttl_s, **more)
        return self._issuer.mint(wish, uuid7(time.time_ns()), time.time_ns() - age_s * 1_000_000_000)

    def client(self, token: str | None = None, headers: dict[str, str] | None = None, **more: Any) -> httpx.Client:
        said = {"authorization": f"Bearer {token or self.token()}"} | (headers or {})
        # verify: reading the machine's certificates takes 20 ms, and there is no TLS here
        return httpx.Client(base_url=self.base, headers=said, timeout=20, trust_env=False, verify=False, **more)

    def sql(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """A question to the store, asked as the operator, who sees every tenant."""
        options = "-c role=shipworthy_operator -c search_path=shipworthy,public"
        with psycopg.connect(self.store_url, options=options, row_factory=dict_row, connect_timeout=5) as conn:
            return conn.execute(statement.encode(), values or None).fetchall()

    def rows(self, where: str = "true", *values: object) -> list[dict[str, Any]]:
        """Rows of the record, oldest first."""
        return self.sql(f"select * from exchange where {where} order by arrived_unix_ns, id", *values)

    def await_rows(self, count: int, where: str = "true", *values: object, seconds: float = 10) -> list[dict[str, Any]]:
        """At least ``count`` rows, or whatever is there when ``seconds`` are over."""
        deadline = time.monotonic() + seconds
        while True:
            rows = self.rows(where, *values)
            if len(rows) >= count or time.monotonic() > deadline:
                return rows
            time.sleep(0.05)

    def row(self, request_id: str) -> dict[str, Any]:
        """The one row of an exchange."""
        rows = self.await_rows(1, "id = %s", request_id)
        assert len(rows) == 1, f"{len(rows)} rows of {request_id}"
        return rows[0]

    def holds(self) -> int:
        return int(self.sql("select count(*) as n from hold")[0]["n"])

    def await_no_holds(self, seconds: float = 10) -> None:
        """Money set aside comes back once all has ended."""
        deadline = time.monotonic() + seconds
        while self.holds() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.holds() == 0, self.sql("select id, worker, created_at, amount_nano from hold")

    @property
    def store_url(self) -> str:
        if not self._store_url:
            self._store_url = store_urls(self.config)[0]
        return self._store_url

    def processes(self, kind: str) -> list[int]:
        """Process ids of the server's workers, or of its control plane: ``worker``, ``control``."""
        found = []
        for entry in _children(self.process.pid):
            for born in _children(entry):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{born}/comm").read_text().startswith(f"sw {kind}"):
                        found.append(born)
        return found

    def stop(self, seconds: float = 30) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


@contextmanager
def deployment(
    folder: Path,
    store: str,
    *,
    first: ScriptedConfig | None = None,
    second: ScriptedConfig | None = None,
    edit: Callable[[str], str] = lambda text: text,
    environ: dict[str, str] | None = None,
    command: tuple[str, ...] = ("-m", "shipworthy", "serve"),
    **values: Any,
) -> Iterator[Deployment]:
    """A server over ``store`` (the manifest's value), stopped at the end; scripted providers answer with markers allowed.

    ``edit`` may change the manifest before the start. ``environ`` is the server's and, meanwhile, this process's too.
    """
    providers = Providers(first or ScriptedConfig(allow_markers=True), second or ScriptedConfig(allow_markers=True))
    given = {"workers": 1, "drain": 5, "durability": "strict", "budget": 100, "store": store} | values
    text = MANIFEST.substitute(first=providers.first.base_url, second=providers.second.base_url, **given)
    (folder / "shipworthy.yaml").write_text(edit(text))
    (folder / "provider.key").write_text(PROVIDER_KEY)
    os.environ.update(environ or {})
    try:
        with running(folder, providers, command) as server:
            yield server
    finally:
        providers.stop()
        for name in environ or {}:
            os.environ.pop(name, None)


@contextmanager
def running(
    folder: Path, providers: Providers, command: tuple[str, ...] = ("-m", "shipworthy", "serve")
) -> Iterator[Deployment]:
    """One run of the server over a folder whose manifest is written."""
    with (folder / "out.log").open("wb") as out, (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "-c", str(folder / "shipworthy.yaml")],
            stdout=out, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        server = Deployment(folder, providers, process)
        try:
            server.await_ready()
            yield server
        finally:
            try:
                server.stop()
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def managed(url: str, migrate_url: str) -> tuple[str, dict[str, str]]:
    """The manifest's ``store`` for an already migrated database, and the environment that it refers to."""
    name = f"TEST_{secrets.token_hex(4)}".upper()
    store = json.dumps({"url": {"env": f"{name}_URL"}, "migrate_url": {"env": f"{name}_MIGRATE_URL"}})
    return store, {f"{name}_URL": url, f"{name}_MIGRATE_URL": migrate_url}


def said(text: str, use_case: str = "chat", **more: object) -> dict[str, object]:
    """A chat body with one message."""
    return {"model": use_case, "messages": [{"role": "user", "content": text}], **more}

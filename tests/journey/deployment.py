"""A whole server for journey tests: supervisor, workers and control plane as real processes, one scripted provider."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psycopg

from shipworthy.bootstrap import development_issuer, read_manifest
from shipworthy.kit.scripted_config import ScriptedConfig
from shipworthy.kit.scripted_server import ScriptedServer
from shipworthy.model.op import uuid7
from shipworthy.ports import TokenWish

READY_S = 30.0

MANIFEST = """\
shipworthy: 1
name: journey
environment: test
requirements:
  data_classes: [public, internal, confidential, restricted]
  boundary: {{confidential: {{trains_on_data: false, retention_days_max: 0}}}}
  audit: {{durability: {durability}, retention_days: 30, bodies: {{retention_days: 7, bytes_max: 65536}}}}
server: {{port: 0, workers: {workers}, drain_seconds: {drain}}}
admin: {{port: 0}}
store: {store}
keys: {{file: keys.json}}
identity: {{development_issuer: true, service_keys: true}}
operators: {{groups: [ops], tenant_claim_optional: true}}
tenants:
  acme:
    budget: {{usd: {budget}, per: month, zone: Europe/Berlin}}
    limits: {{requests_per_min: 100000, concurrent: 500}}
    teams: {{support: {{budget: {{usd: {budget}, per: month}}}}}}
    roles:
      agent: {{groups: [agents], team: support, use_cases: ["*"], clearance: confidential}}
      backend: {{keys: true, team: support, use_cases: [chat], clearance: internal, may_assert_end_user: true}}
      admin: {{groups: [admins], team: support, use_cases: ["*"], clearance: restricted, admin: true}}
    aliases: {{gpt-4o: chat}}
  poor:
    budget: {{usd: "0.000001", per: day}}
    teams: {{all: {{}}}}
    roles: {{member: {{groups: [agents], team: all, use_cases: ["*"], clearance: internal}}}}
providers:
  first: {{kind: openai-compatible, base_url: "{first}", boundary: {{regions: [eu], network: private, trains_on_data: false, retention_days: 0}}, timeouts: {{connect_ms: 500, first_token_ms: 1500, total_ms: 6000}}, concurrent_max: 500}}
  second: {{kind: openai-compatible, base_url: "{second}", boundary: {{regions: [us], network: public, trains_on_data: true, retention_days: 30}}, timeouts: {{connect_ms: 500, first_token_ms: 1500, total_ms: 6000}}, concurrent_max: 500}}
models:
  one: {{provider: first, upstream: up-one, abilities: [chat], modalities: [text, image], context_tokens_max: 8000000, output_tokens_max: 4096, price: {{input_usd_per_mtok: 1, output_usd_per_mtok: 4}}}}
  two: {{provider: second, upstream: up-two, abilities: [chat], context_tokens_max: 8000000, output_tokens_max: 4096, price: {{input_usd_per_mtok: 0.5, output_usd_per_mtok: 2}}}}
  vectors: {{provider: first, upstream: up-vectors, abilities: [embed], context_tokens_max: 8000000, output_tokens_max: 1, price: {{input_usd_per_mtok: 0.1}}}}
use_cases:
  chat: {{job: Answer., done: {{right: a, wrong: b, refuse: c}}, owner: support, risk: minimal, data_class: internal, mode: enforce, tokens: {{input_max: 4000000, output_max: 500}}, route: {{strategy: first, models: [one]}}, on_disconnect: {{drain_seconds: 1}}}}
  pair: {{job: Answer., done: {{right: a, wrong: b, refuse: c}}, owner: support, risk: minimal, data_class: internal, mode: enforce, tokens: {{input_max: 4000000, output_max: 500}}, route: {{strategy: first, models: [one, two]}}, on_disconnect: {{drain_seconds: 0}}}}
  abroad: {{job: Answer., done: {{right: a, wrong: b, refuse: c}}, owner: support, risk: minimal, data_class: internal, mode: enforce, tokens: {{input_max: 4000000, output_max: 500}}, route: {{strategy: first, models: [two]}}}}
  embed: {{job: Embed., done: {{right: a, wrong: b, refuse: c}}, owner: support, risk: minimal, data_class: internal, mode: enforce, tokens: {{input_max: 4000000, output_max: 1}}, route: {{strategy: first, models: [vectors]}}}}
"""


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

    def _run(self, work: Any) -> None:
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

    def token(self, tenant: str = "acme", subject: str = "ada", groups: tuple[str, ...] = ("agents",), **more: Any) -> str:
        issuer = development_issuer(read_manifest(self.config))
        assert issuer is not None
        wish = TokenWish(tenant=tenant, subject=subject, groups=groups, ttl_s=more.pop("ttl_s", 3600), **more)
        return issuer.mint(wish, uuid7(time.time_ns()), time.time_ns())

    def client(self, token: str | None = None, **more: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {token or self.token()}"}
        return httpx.Client(base_url=self.base, headers=headers, timeout=20, trust_env=False, **more)

    def rows(self, where: str = "true", url: str = "") -> list[dict[str, Any]]:
        """Rows of the record, read as the operator."""
        with psycopg.connect(url or self.store_url, options="-c role=shipworthy_operator -c search_path=shipworthy,public",
                             row_factory=psycopg.rows.dict_row) as conn:
            return conn.execute(f"select * from exchange where {where} order by arrived_at").fetchall()

    def await_rows(self, count: int, where: str = "true", seconds: float = 10) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while True:
            rows = self.rows(where)
            if len(rows) >= count or time.monotonic() > deadline:
                return rows
            time.sleep(0.05)

    def holds(self) -> int:
        with psycopg.connect(self.store_url, options="-c role=shipworthy_operator -c search_path=shipworthy,public") as conn:
            row = conn.execute("select count(*) from hold").fetchone()
            assert row is not None
            return int(row[0])

    @property
    def store_url(self) -> str:
        from shipworthy.bootstrap import store_urls

        return store_urls(self.config)[0]

    def children(self) -> dict[str, int]:
        """Process ids by module: worker, control, …"""
        found: dict[str, int] = {}
        for entry in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            command = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            found[command[2].decode().rpartition(".")[2] if len(command) > 2 else command[0].decode()] = int(entry)
        return found

    def stop(self, seconds: float = 30) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextmanager
def deployment(
    folder: Path,
    store: str,
    *,
    first: ScriptedConfig | None = None,
    second: ScriptedConfig | None = None,
    edit: Callable[[str], str] = lambda text: text,
    environ: dict[str, str] | None = None,
    **values: Any,
) -> Iterator[Deployment]:
    """A server over ``store`` (the manifest's value), stopped at the end; scripted providers answer with markers allowed."""
    providers = Providers(first or ScriptedConfig(allow_markers=True), second or ScriptedConfig(allow_markers=True))
    given = {"workers": 1, "drain": 5, "durability": "strict", "budget": 100, "store": store} | values
    text = MANIFEST.format(first=providers.first.base_url, second=providers.second.base_url, **given)
    (folder / "shipworthy.yaml").write_text(edit(text))
    out, log = (folder / "out.log").open("wb"), (folder / "server.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "shipworthy", "serve", "-c", str(folder / "shipworthy.yaml")],
        stdout=out, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **(environ or {})},
    )  # fmt: skip
    running = Deployment(folder, providers, process)
    try:
        running.await_ready()
        yield running
    finally:
        try:
            running.stop()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            providers.stop()
            out.close()
            log.close()


def managed(url: str, migrate_url: str) -> tuple[str, dict[str, str]]:
    """The manifest's ``store`` for an already migrated database, and the environment that it refers to."""
    store = json.dumps({"url": {"env": "TEST_STORE_URL"}, "migrate_url": {"env": "TEST_MIGRATE_URL"}})
    return store, {"TEST_STORE_URL": url, "TEST_MIGRATE_URL": migrate_url}

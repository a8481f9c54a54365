"""Canaries: what must not leave is looked for in every sink, after everything that could make it leave was done.

Sinks: the log, standard output, /metrics, every answer that was no answer to its own question, every column of every table
but the sealed ones, PostgreSQL's own log, the files beside the manifest, and the command line of every process.
"""

from __future__ import annotations

import http.server
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import psycopg
import pytest
from tests.conftest import Postgres, StoreUrls
from tests.journey.deployment import PROVIDER_KEY, Deployment, deployment, managed, said

from shipworthy.adapters.telemetry.redaction import BLANK
from shipworthy.kit.scripted_config import Saying, ScriptedConfig

CHAT = "/v1/chat/completions"
ECHO = """
providers:
  echo: {kind: openai-compatible, base_url: "URL",
    boundary: {regions: [eu], network: private, trains_on_data: false, retention_days: 0}}"""
ECHO_MODEL = """
models:
  echoing: {provider: echo, upstream: up-echo, abilities: [chat], context_tokens_max: 100000, output_tokens_max: 1000,
    price: {input_usd_per_mtok: 1, output_usd_per_mtok: 4}}"""
ECHO_USE_CASE = """
use_cases:
  echo: {job: Answer., done: {right: a, wrong: b, refuse: c}, owner: support, risk: minimal, data_class: internal,
    mode: enforce, tokens: {input_max: 10000, output_max: 500}, route: {strategy: first, models: [echoing]}}"""


class Echo(http.server.BaseHTTPRequestHandler):
    """A provider whose errors print what it was sent, as validators do; the message says with which status."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        text = json.loads(body)["messages"][-1]["content"]
        status = int(text.partition(" ")[0])
        shapes = {400: {"detail": [{"msg": "bad", "input": text}]}, 422: {"error": f"cannot use {text}"}}
        said = json.dumps(
            shapes.get(status, {"error": {"message": f"failed on {text!r}, {self.headers['authorization']}"}})
        )
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, format: str, *args: object) -> None:
        return


@dataclass
class Canaries:
    """What was planted, by what it stands for."""

    prompt: str = f"canary-prompt-{secrets.token_hex(8)}"
    answer: str = f"canary-answer-{secrets.token_hex(8)}"
    tool: str = f"canary-tool-{secrets.token_hex(8)}"
    idempotency: str = f"canary-idempotency-{secrets.token_hex(8)}"
    header: str = f"canary-header-{secrets.token_hex(8)}"
    provider: str = PROVIDER_KEY
    token: str = ""
    forged: str = ""
    key: str = ""
    answers: list[str] = field(default_factory=list)

    def planted(self) -> dict[str, str]:
        """The shortest part of each that would give it away."""
        parts = {
            "prompt": self.prompt,
            "answer": self.answer,
            "tool": self.tool,
            "idempotency key": self.idempotency,
            "unread header": self.header,
            "provider's key": self.provider,
            "token's signature": self.token.rpartition(".")[2],
            "forged token": self.forged,
            "service key": self.key.rpartition("-")[2],
        }
        assert all(len(part) > 16 for part in parts.values()), parts
        return parts


@pytest.fixture(scope="module")
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture(scope="module")
def server(
    module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory, canaries: Canaries
) -> Iterator[Deployment]:
    echo = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=echo.serve_forever, daemon=True).start()
    folder: Path = tmp_path_factory.mktemp("canary")
    store, environ = managed(module_store.url, module_store.migrate_url)

    def edit(text: str) -> str:
        text = text.replace("\nproviders:", ECHO.replace("URL", f"http://127.0.0.1:{echo.server_port}/v1"))
        text = text.replace("\nmodels:", ECHO_MODEL).replace("\nuse_cases:", ECHO_USE_CASE)
        return text + "telemetry: {prometheus: {host: 127.0.0.1, port: 0}}\n"

    first = ScriptedConfig(allow_markers=True, answers=(Saying(contains="tell me", say=f"well: {canaries.answer}"),))
    with deployment(folder, store, environ=environ, edit=edit, first=first, durability="relaxed") as running:
        yield running
    echo.shutdown()
    echo.server_close()


@pytest.fixture(scope="module")
def sung(server: Deployment, canaries: Canaries) -> Canaries:
    """Everything was tried that could make a canary sing."""
    canaries.token = server.token()
    canaries.forged = f"{canaries.token.rpartition('.')[0]}.canaryforged{secrets.token_hex(16)}"
    with httpx.Client(
        base_url=f"{server.admin}/admin/v1",
        headers={"authorization": f"Bearer {server.token(subject='eve', groups=('admins',))}"},
        trust_env=False,
    ) as admin:
        canaries.key = admin.post("/keys", json={"role": "backend", "name": "ci"}).json()["secret"]
        _serve(server, canaries)
        _refuse(server, canaries)
        canaries.answers += [admin.get(path).text for path in ("/exchanges?limit=100", "/keys", "/cost?by=use_case")]
    return canaries


def _serve(server: Deployment, canaries: Canaries) -> None:
    """Answers and failures of every kind; what a client is told about a failure is a sink, its own answer is not."""
    ask = f"tell me {canaries.prompt}"
    tools = [{"type": "function", "function": {"name": "look_up", "description": canaries.tool, "parameters": {}}}]
    headers = {"idempotency-key": canaries.idempotency, "x-secret": canaries.header, "cookie": canaries.header}
    with server.client(canaries.token, headers) as client, server.client(canaries.key) as keyed:
        for _ in range(2):
            assert canaries.answer in client.post(CHAT, json=said(ask, tools=tools)).text
        del client.headers["idempotency-key"]
        assert canaries.answer in keyed.post(CHAT, json=said(ask, stream=True)).text
        for fault in ("500", "400", "half-stream", "broken-json", "error-midway", "empty", "hang-midway"):
            for stream in (True, False):
                client.post(CHAT, json=said(f"{ask} [[fault:{fault}]]", "chat", stream=stream))
        for status in (400, 401, 422, 429, 500):
            canaries.answers.append(client.post(CHAT, json=said(f"{status} {canaries.prompt}", "echo")).text)


def _refuse(server: Deployment, canaries: Canaries) -> None:
    def post(body: object, token: str, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        with server.client(token, {"content-type": "application/json"} | (headers or {})) as client:
            canaries.answers.append(client.post(CHAT, content=content).text)

    good, prompt = canaries.token, canaries.prompt
    post(said(prompt), canaries.forged)
    post(said(prompt), f"{canaries.key[:-1]}0")
    post(said(prompt), good, {"x-api-key": canaries.key})
    post(said(prompt), server.token("poor"))
    post(said(prompt, max_tokens=10_000), good)
    post(said(prompt, "chat", **{prompt: prompt}, n=99), good)
    post(b'{"model":"chat","messages":[{"role":"user","content":"' + prompt.encode(), good)
    post(b'{"model":"chat","messages":"' + prompt.encode() + b'"}', good)
    post(b'{"model":"chat","messages":[{"role":"user","content":"' + prompt.encode() + b'\xff"}]}', good)


def test_nothing_sings_in_what_processes_say(server: Deployment, sung: Canaries) -> None:
    (control,) = server.processes("control")
    sinks = {
        "log": server.log,
        "output": (server.folder / "out.log").read_text(),
        "metrics": _metrics(server, control),
        "answers": "\n".join(sung.answers),
    }
    assert '"event":"ended"' in sinks["log"]
    assert "shipworthy" in sinks["metrics"]
    assert [(sink, name) for sink, text in sinks.items() for name, part in sung.planted().items() if part in text] == []
    assert BLANK not in sinks["log"], "nothing had to be caught by the safety net"


def _metrics(server: Deployment, control: int) -> str:
    """From whichever port of the control plane serves them."""
    inodes = {
        link.readlink().name for link in Path(f"/proc/{control}/fd").iterdir() if "socket" in str(link.readlink())
    }
    ports = [
        int(line.split()[1].rpartition(":")[2], 16)
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in inodes
    ]
    found = [httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False) for port in ports]
    (page,) = [answer.text for answer in found if answer.status_code == 200]
    return page


def test_nothing_sings_on_a_command_line(server: Deployment, sung: Canaries) -> None:
    for pid in (server.process.pid, *server.processes("worker"), *server.processes("control")):
        command = Path(f"/proc/{pid}/cmdline").read_text()
        assert not [name for name, part in sung.planted().items() if part in command]
        assert server.store_url not in command


def test_nothing_sings_in_a_plain_column(server: Deployment, sung: Canaries, module_store: StoreUrls) -> None:
    """Every table as text, bytes as bytes: only what is sealed may hold what was said, and it holds it sealed."""
    server.await_no_holds()
    server.await_rows(30)
    rows = 0
    with psycopg.connect(module_store.superuser_url) as conn:
        tables = conn.execute(
            "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        for (table,) in tables:
            for row in conn.execute(f"select * from {table}".encode()):
                rows += 1
                text = b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in row)
                singing = [name for name, part in sung.planted().items() if part.encode() in text]
                assert singing == [], (table, row)
        sealed = conn.execute("select count(*) from shipworthy.body").fetchone()
        assert sealed is not None
        assert sealed[0] > 20, "bodies were kept, so there was something to find"
    assert rows > 60


def test_nothing_sings_in_postgresqls_log(postgres: Postgres, sung: Canaries) -> None:
    if postgres.launcher is None:
        pytest.skip("somebody else's server: its log is theirs")
    with psycopg.connect(postgres.superuser_url) as conn:
        row = conn.execute("show data_directory").fetchone()
        assert row is not None
    text = (Path(row[0]).parent / "server.log").read_text(errors="replace")
    assert text
    assert [name for name, part in sung.planted().items() if part in text] == []


def test_nothing_sings_in_a_file(server: Deployment, sung: Canaries) -> None:
    for path in server.folder.rglob("*"):
        if path.is_file() and path.name != "provider.key":
            content = path.read_bytes()
            assert not [name for name, part in sung.planted().items() if part.encode() in content], path


def test_the_canaries_were_heard_where_they_belong(server: Deployment, sung: Canaries) -> None:
    """The provider got the prompt and its own key; whoever may read bodies gets them, opened."""
    entry = next(entry for entry in server.providers.first.log if sung.prompt.encode() in entry.body)
    assert entry.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    row = server.rows("outcome = 'served'")[0]
    headers = {"authorization": f"Bearer {server.token(subject='eve', groups=('admins',))}"}
    bodies = httpx.get(f"{server.admin}/admin/v1/exchanges/{row['id']}/bodies", headers=headers, trust_env=False).text
    assert sung.prompt in bodies
    assert sung.answer in bodies

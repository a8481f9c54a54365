"""`check` and `init`: what they print, how they exit, and what they never do."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socketserver
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from shipworthy.cli import check, init, init_search
from shipworthy.manifest.tree import read_tree

CASES = Path(__file__).parents[1] / "golden/manifest/cases"
CANARY = "canary-91c2"

app = typer.Typer()
check.register(app)
init.register(app)


@app.callback()
def root() -> None:
    """Two verbs."""


def run(*words: str, **environ: str) -> tuple[int, str]:
    clean = dict.fromkeys([provider.variable for provider in init_search.REMOTE])
    result = CliRunner().invoke(app, list(words), env={**clean, "COLUMNS": "200", **environ})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "shipworthy.yaml"
    path.write_text((CASES / "minimal.txt").read_text().partition("-" * 10)[0])
    return path


@pytest.fixture(autouse=True)
def no_local_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens to run on the machine that tests must not decide them."""
    monkeypatch.setattr(init_search, "LOCAL", ())


def test_check_says_fine(manifest: Path) -> None:
    code, said = run("check", "-c", str(manifest))
    assert code == 0
    assert "is fine: 1 tenant, 1 use case, 1 model, 1 provider" in said
    assert "digest " in said


def test_check_says_every_problem(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace("team: support", "team: suport").replace("[small]", "[smal]"))
    code, said = run("check", "-c", str(manifest))
    assert code == 1
    assert f"{manifest}:9: problem: tenants.acme.roles.app.team" in said
    assert "  said    'suport'" in said
    assert "  hint    did you mean small?" in said
    assert "is refused: 2 problems" in said


def test_check_json(manifest: Path) -> None:
    code, said = run("check", "-c", str(manifest), "--json")
    assert (code, json.loads(said)["accepted"]) == (0, True)
    manifest.write_text(manifest.read_text().replace("team: support", "team: suport"))
    code, said = run("check", "-c", str(manifest), "--json")
    found = json.loads(said)
    assert (code, found["accepted"], found["digest"]) == (1, False, None)
    (problem,) = found["problems"]
    assert problem == {
        "file": str(manifest), "line": 9, "path": "tenants.acme.roles.app.team", "what": "no such team of the tenant",
        "said": "'suport'", "wanted": "support", "hint": "did you mean support?", "severity": "problem",
    }  # fmt: skip


def test_check_exit_codes(manifest: Path, tmp_path: Path) -> None:
    manifest.write_text(manifest.read_text() + "admin: {host: 0.0.0.0}\n")
    code, said = run("check", "-c", str(manifest))
    assert (code, "1 warning" in said) == (0, True), "warnings exit 0"
    code, said = run("check", "-c", str(tmp_path / "nothing.yaml"))
    assert (code, "shipworthy init writes one" in said) == (1, True)
    assert run("check", "--no-such-option")[0] == 2


def test_check_without_secrets(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace("base_url:", "credentials: {env: NOT_SET_HERE}, base_url:"))
    assert run("check", "-c", str(manifest))[0] == 1
    assert run("check", "-c", str(manifest), "--no-secrets")[0] == 0


def test_check_prints_the_schema() -> None:
    code, said = run("check", "--schema")
    assert code == 0
    assert json.loads(said)["title"] == "shipworthy.yaml"


def test_init_with_nothing_found(tmp_path: Path) -> None:
    """The manifest passes check and uses the local model."""
    code, said = run("init", str(tmp_path / "new place"))
    assert code == 0
    path = tmp_path / "new place/shipworthy.yaml"
    assert f"wrote {path}" in said
    assert f"shipworthy serve -c '{path}'" in said
    assert run("check", "-c", str(path)) == run("check", "-c", str(path))
    value = read_tree(path.read_bytes(), "m").value
    assert value["providers"] == {"local": {"kind": "llama-cpp"}}
    assert value["name"] == "new-place"


def test_init_finds_keys_and_writes_none(tmp_path: Path) -> None:
    environ = {provider.variable: CANARY for provider in init_search.REMOTE}
    code, said = run("init", str(tmp_path), **environ)
    assert code == 0, said
    text = (tmp_path / "shipworthy.yaml").read_text()
    assert CANARY not in said + text
    for provider in init_search.REMOTE:
        assert f"credentials: {{env: {provider.variable}}}" in text
    assert run("check", "-c", str(tmp_path / "shipworthy.yaml"), **environ)[0] == 0


def test_init_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "shipworthy.yaml"
    path.write_text("mine")
    code, said = run("init", str(tmp_path))
    assert (code, "--force" in said) == (1, True)
    assert path.read_text() == "mine"
    assert run("init", str(tmp_path), "--force")[0] == 0
    assert path.read_text().startswith("# Shipworthy's manifest")
    assert [entry.name for entry in tmp_path.iterdir()] == ["shipworthy.yaml"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_init_where_nothing_may_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    code, said = run("init", str(tmp_path))
    assert (code, "cannot be written" in said) == (1, True)


def test_init_json(tmp_path: Path) -> None:
    code, said = run("init", str(tmp_path), "--json")
    found = json.loads(said)
    assert (code, found["found"]) == (0, ["local"])
    assert found["manifest"] == str(tmp_path / "shipworthy.yaml")


class Answers(http.server.BaseHTTPRequestHandler):
    """A model server, or something that only listens on its port."""

    body: bytes = b""
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[tuple[type[Answers], int]]:
    handler = type("Handler", (Answers,), {})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield handler, listening.server_address[1]
        listening.shutdown()
        thread.join()


def found_at(monkeypatch: pytest.MonkeyPatch, name: str, path: str, port: int) -> list[init_search.Found]:
    monkeypatch.setattr(init_search, "LOCAL", ((name, name, port, path),))
    return init_search.search({})


def test_init_finds_ollama(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[type[Answers], int]) -> None:
    handler, port = server
    names = ["nomic-embed-text:latest", "llama3.2:3b", 'odd "name"']
    handler.body = json.dumps({"models": [{"name": name} for name in names]}).encode()
    (found,) = found_at(monkeypatch, "ollama", "/api/tags", port)
    assert [model.embeds for model in found.models] == [False, False, True]
    code, said = run("init", str(tmp_path))
    assert code == 0, said
    value = read_tree((tmp_path / "shipworthy.yaml").read_bytes(), "m").value
    models, use_cases = value["models"], value["use_cases"]
    assert isinstance(models, dict) and isinstance(use_cases, dict)
    assert sorted(models) == ["llama3.2-3b", "nomic-embed-text-latest", "odd-name"]
    assert sorted(use_cases) == ["assistant", "embeddings"]
    assert value["server"] == {"host": "127.0.0.1", "port": 8080}


def test_init_finds_vllm_and_leaves_its_port_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: tuple[type[Answers], int]
) -> None:
    handler, port = server
    handler.body = b'{"object": "list", "data": [{"id": "Qwen/Qwen3-8B", "max_model_len": 40960}]}'
    monkeypatch.setattr("shipworthy.cli.init_text.SERVER_PORTS", (port, 8081))
    (found,) = found_at(monkeypatch, "vllm", "/v1/models", port)
    assert found.models == (init_search.FoundModel("Qwen/Qwen3-8B", 40_960, 2_048),)
    assert run("init", str(tmp_path), OPENAI_API_KEY="x")[0] == 0
    value = read_tree((tmp_path / "shipworthy.yaml").read_bytes(), "m").value
    assert value["server"] == {"host": "127.0.0.1", "port": 8081}
    assert "stays-home" in (tmp_path / "shipworthy.yaml").read_text()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""), (200, b"<html>"), (200, b"[]"), (200, b'{"data": {}}'), (200, b'{"data": [1, {"id": 5}, {"id": ""}]}'),
        (401, b'{"data": [{"id": "m"}]}'), (200, b'{"data": [{"id": "a\\u001b[2J"}]}'), (200, b"[" * 100_000),
        (200, b'{"data": [{"id": "' + b"x" * 300 + b'"}]}'), (200, b'{"x": "' + b"x" * 2_000_000 + b'"}'), (200, b"\xff"),
    ],
)  # fmt: skip
def test_what_only_listens_is_not_found(
    monkeypatch: pytest.MonkeyPatch, server: tuple[type[Answers], int], status: int, body: bytes
) -> None:
    handler, port = server
    handler.status, handler.body = status, body
    assert found_at(monkeypatch, "vllm", "/v1/models", port) == []


def test_a_silent_port_costs_no_time() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as listening:
        began = time.monotonic()
        assert init_search.ask(listening.server_address[1], "/v1/models") is None
        assert time.monotonic() - began < 2
    assert init_search.ask(listening.server_address[1], "/v1/models") is None


def test_a_dripping_port_costs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header a tenth of a second, for ever: the search goes on without it."""
    stop = threading.Event()

    class Drips(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.sendall(b"HTTP/1.1 200 OK\r\n")
                while not stop.wait(0.1):
                    self.request.sendall(b"x: y\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Drips) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        began = time.monotonic()
        assert found_at(monkeypatch, "vllm", "/v1/models", listening.server_address[1]) == []
        assert time.monotonic() - began < 2
        stop.set()
        listening.shutdown()

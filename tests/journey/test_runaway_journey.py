"""A session runs away on a server with two workers: stopped within seconds, its neighbours are served, a release holds."""

from __future__ import annotations

import contextlib
import json
import shlex
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
PAUSED_S = 10.0
"""A look each two seconds, and whatever else this machine does at the same time."""
RELEASED_S = 1.0
CONNECTIONS = 12
RULE = 'runaway: {multiple: 2, at_least_usd_per_min: "0.002", window_minutes: 1}'
DEAR = "far too much of it " * 2_500


def with_runaway(text: str) -> str:
    """The tenant acme is watched, and one use case only observes."""
    head, tenant, rest = text.partition("  acme:\n")
    text = f"{head}{tenant}    {RULE}\n{rest}"
    head, pair, rest = text.partition("  pair:\n")
    return head + pair + rest.replace("mode: enforce", "mode: observe", 1)


@pytest.fixture(scope="module")
def server(module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("runaway")
    store, environ = managed(module_store.url, module_store.migrate_url)
    with deployment(folder, store, environ=environ, workers=2, edit=with_runaway) as running:
        yield running


def command(server: Deployment, *words: str) -> str:
    shell = [sys.executable, "-m", "shipworthy", *words, "-c", str(server.config)]
    return subprocess.run(shell, check=True, capture_output=True, text=True, timeout=60).stdout


def ask(client: httpx.Client, session: str = "", use_case: str = "chat", text: str = "hi") -> httpx.Response:
    headers = {"x-shipworthy-session": session} if session else {}
    return client.post(CHAT, json=said(text, use_case), headers=headers)


@contextlib.contextmanager
def crowd(server: Deployment, subject: str) -> Iterator[list[httpx.Client]]:
    """Connections of one person, so many that each worker has some."""
    token = server.token(subject=subject)
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(server.client(token)) for _ in range(CONNECTIONS)]


def until_paused(client: httpx.Client, session: str, text: str = "hi") -> httpx.Response:
    """Goes on asking until it is refused."""
    deadline = time.monotonic() + PAUSED_S
    while True:
        answer = ask(client, session, text=text)
        if answer.status_code != 200:
            return answer
        assert time.monotonic() < deadline, "nobody stopped it"
        time.sleep(0.05)


def cut(superuser_url: str, stop: threading.Event) -> None:
    """Ends every connection that listens, as long as asked."""
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        while not stop.wait(0.05):
            conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen %'")


@pytest.mark.parametrize("listening", [True, False], ids=["listening", "listen-cut"])
def test_a_runaway_session_is_stopped_and_released(
    server: Deployment, module_store: StoreUrls, listening: bool
) -> None:
    subject, session = f"ada-{listening}", "agent-7"
    stop = threading.Event()
    cutting = threading.Thread(target=cut, args=(module_store.superuser_url, stop))
    with crowd(server, subject) as clients, crowd(server, f"bob-{listening}") as others:
        if not listening:
            cutting.start()
        try:
            refused = until_paused(clients[0], session, DEAR)
            assert refused.status_code == 403, refused.text
            assert refused.headers["x-should-retry"] == "false"
            error = refused.json()["error"]
            assert error["code"] == "reserve.paused"
            assert error["message"].partition(" ")[2].startswith("session is paused since 20")
            assert "it spent far more than is normal" in error["message"]
            time.sleep(RELEASED_S)
            assert {ask(client, session).status_code for client in clients} == {403}, "on every worker"
            assert {ask(client).status_code for client in clients} == {200}, "without the session"
            assert {ask(client, "other").status_code for client in clients} == {200}, "its other session"
            assert {ask(client, session).status_code for client in others} == {200}, "another's session of the name"

            listed = json.loads(command(server, "cost", "paused", "--json"))["pauses"]
            (pause,) = [each for each in listed if each["principal"].endswith(f"#{subject}")]
            assert pause["by"] == "runaway"
            assert "twice" not in pause["reason"]
            assert "2 times that is" in pause["reason"]
            words = shlex.split(pause["release"].replace("…", "it was a test"))
            assert words[0] == "shipworthy"
            command(server, *words[1:])
            time.sleep(RELEASED_S)
            assert {ask(client, session).status_code for client in clients} == {200}
        finally:
            stop.set()
            if cutting.ident:
                cutting.join()
        time.sleep(5)
        assert {ask(client, session).status_code for client in clients} == {200}, "the same spike pauses nobody twice"
    acts = server.sql(
        "select actor, act from admin_act where facts ->> 'principal' like %s order by at", f"%#{subject}"
    )
    assert [act["act"] for act in acts] == ["spend.pause", "spend.release"]
    assert acts[0]["actor"] == "runaway"
    rows = server.rows("subject = %s and refusal_code = 'reserve.paused'", subject)
    assert rows
    assert {(row["session"], row["outcome"], row["charged_nano"], row["held_nano"]) for row in rows} == {
        (session, "refused", 0, 0)
    }


def test_it_is_said_in_the_log_with_the_command(server: Deployment) -> None:
    lines = [json.loads(line) for line in server.log.splitlines() if '"event":"runaway_paused"' in line]
    assert lines
    assert all(line["stopped"] for line in lines)
    assert all(line["release"].startswith("shipworthy cost release session agent-7") for line in lines)


def test_a_pause_by_hand_stops_every_mode_and_any_key(server: Deployment) -> None:
    """Money is enforced where nothing else is: a use case that only observes refuses too."""
    headers = {"authorization": f"Bearer {server.token(subject='eve', groups=('admins',))}"}
    with (
        httpx.Client(base_url=f"{server.admin}/admin/v1", headers=headers, trust_env=False, timeout=20) as admin,
        crowd(server, "carl") as clients,
    ):
        assert {ask(client, use_case="pair").status_code for client in clients} == {200}
        issuer = server.rows("subject = 'carl'")[0]["issuer"]
        wanted = {"kind": "principal", "name": f"{issuer}#carl", "because": "he left"}
        made = admin.post("/pauses", json=wanted)
        assert made.status_code == 201, made.text
        time.sleep(RELEASED_S)
        answers = [ask(client, use_case=use_case) for client in clients for use_case in ("chat", "pair")]
        assert {answer.json()["error"]["code"] for answer in answers} == {"reserve.paused"}
        assert all("an administrator paused it" in answer.text for answer in answers)
        ended = admin.post(f"/pauses/{made.json()['id']}/release", json={"because": "he is back"})
        assert ended.status_code == 200, ended.text
        time.sleep(RELEASED_S)
        assert {ask(client).status_code for client in clients} == {200}

        key = admin.post("/keys", json={"role": "backend", "name": "nightly"}).json()
        with server.client(key["secret"]) as client:
            assert ask(client).status_code == 200
            named = {"kind": "principal", "name": f"key:{key['key']['id']}", "because": "leaked"}
            assert admin.post("/pauses", json=named).status_code == 201
            time.sleep(RELEASED_S)
            assert ask(client).status_code == 403


def test_each_spike_was_stopped_once(server: Deployment) -> None:
    """By one watch, however many workers there are."""
    found = server.sql("select count(*) as n from pause where by = 'runaway'")
    assert found[0]["n"] == 2

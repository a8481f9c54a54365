"""Reloads under load: every request is decided by one manifest from its begin to its end, and the newest soon decides.

Two workers, twenty requests a second or more. Versions of the manifest differ in several places at once, so that a request
which saw parts of two of them would show it in its row.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import StoreUrls
from tests.journey.deployment import Deployment, deployment, managed, said

from shipworthy.bootstrap import read_manifest

CHAT = "/v1/chat/completions"
VERSIONS = 6
SEEN_S_MAX = 10.0

MOVING_MODEL = """
models:
  moving: {provider: first, upstream: up-v%d, abilities: [chat], context_tokens_max: 100000, output_tokens_max: 4096,
    price: {input_usd_per_mtok: %d, output_usd_per_mtok: 4}}"""
MOVING_USE_CASE = """
use_cases:
  case-%d: {job: Answer., done: {right: a, wrong: b, refuse: c}, owner: support, risk: minimal, data_class: internal,
    mode: enforce, tokens: {input_max: 10000, output_max: %d}, route: {strategy: first, models: [moving]}}"""


def version(text: str, number: int) -> str:
    """One change in four places: alias, use case and its cap, the model's upstream and price."""
    text = text.replace("\nmodels:", MOVING_MODEL % (number, number + 1))
    text = text.replace("\nuse_cases:", MOVING_USE_CASE % (number, 100 + number))
    return text.replace("aliases: {gpt-4o: chat}", f"aliases: {{gpt-4o: chat, now: case-{number}}}")


@pytest.fixture(scope="module")
def server(module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("reload")
    store, environ = managed(module_store.url, module_store.migrate_url)
    with deployment(folder, store, environ=environ, workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def base(server: Deployment) -> str:
    return server.config.read_text()


def put(server: Deployment, text: str, *, hangup: bool = False) -> str:
    """Replaces the manifest; its digest."""
    beside = server.folder / "next.yaml"
    beside.write_text(text)
    digest = read_manifest(beside).snapshot.digest
    beside.replace(server.config)
    if hangup:
        server.process.send_signal(signal.SIGHUP)
    return digest


def readiness(server: Deployment) -> dict[str, str]:
    with server.client("nobody") as client:
        answer = client.get("/readyz")
    assert answer.status_code == 200, "a bad manifest is no reason to get no traffic"
    checks: dict[str, str] = answer.json()
    return checks


def until(holds: Callable[[], bool]) -> None:
    """``holds``, in both workers: it must be so ten times in a row, each on a connection of its own."""
    deadline, in_a_row = time.monotonic() + SEEN_S_MAX, 0
    while in_a_row < 10:
        in_a_row = in_a_row + 1 if holds() else 0
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def load(server: Deployment, model: str) -> Iterator[list[int]]:
    """Requests without a pause for longer than they take, from four clients; their statuses."""
    stop = threading.Event()
    statuses: list[int] = []

    def run(number: int) -> None:
        token = server.token(subject=f"load-{model}-{number}")
        while not stop.is_set():
            with server.client(token) as client:  # a connection each, so that both workers get some
                statuses.append(client.post(CHAT, json=said("hi there", model, stream=number % 2 == 0)).status_code)
            stop.wait(0.05)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_no_request_sees_half_a_snapshot(server: Deployment, base: str) -> None:
    """Each version is put in force by the file or by SIGHUP, in the midst of the load."""
    digests: dict[str, int] = {put(server, version(base, 0)): 0}
    until(lambda: readiness(server)["digest"] in digests)
    with load(server, "now") as statuses:
        for number in range(1, VERSIONS):
            time.sleep(0.6)
            digest = put(server, version(base, number), hangup=number % 2 == 0)
            digests[digest] = number
            until(lambda digest=digest: readiness(server)["digest"] == digest)  # type: ignore[misc]
    assert set(statuses) == {200}
    rows = server.await_rows(len(statuses), "subject like 'load-now-%%'")
    assert len(rows) == len(statuses) > 20 * VERSIONS * 0.6
    for row in rows:
        number = digests[row["manifest_digest"]]
        assert (row["alias"], row["use_case"]) == ("now", f"case-{number}")
        assert [attempt["upstream"] for attempt in row["attempts"]] == [f"up-v{number}"]
        assert row["charge_lines"][0]["unit_price_pico"] == (number + 1) * 1_000_000
        assert row["cut"][0].startswith(f"output capped at {100 + number} ")
    assert {digests[row["manifest_digest"]] for row in rows} == set(range(VERSIONS)), "every version served"


def test_a_stream_keeps_the_manifest_that_it_began_with(server: Deployment, base: str) -> None:
    old = put(server, version(base, 10))
    until(lambda: readiness(server)["digest"] == old)
    body = said("[[fault:slow delay_ms=150]] some words to say again and again", "now", stream=True)
    with server.client() as client, client.stream("POST", CHAT, json=body) as response:
        pieces = response.iter_raw()
        next(pieces)
        new = put(server, base)
        until(lambda: readiness(server)["digest"] == new)
        whole = b"".join(pieces)
    assert whole.endswith(b"data: [DONE]\n\n")
    row = server.row(response.headers["x-shipworthy-request-id"])
    assert (row["outcome"], row["manifest_digest"], row["use_case"]) == ("served", old, "case-10")
    with server.client() as client:
        assert client.post(CHAT, json=said("hi", "now")).status_code == 404, "and the next request meets the new one"


def test_what_is_taken_away_is_gone(server: Deployment, base: str) -> None:
    """A use case, an alias, a role's right, a tenant."""
    poor = server.token("poor")
    with server.client() as client, server.client(poor) as other:
        assert client.post(CHAT, json=said("hi", "gpt-4o")).status_code == 200
        less = base.replace("aliases: {gpt-4o: chat}", "aliases: {}").replace(
            'use_cases: ["*"]', "use_cases: [chat]", 1
        )
        start, end = less.index("  poor:"), less.index("\nproviders:")
        put(server, less[:start].rstrip(" ") + less[end:])
        until(lambda: client.post(CHAT, json=said("hi", "gpt-4o")).status_code == 404)
        assert client.post(CHAT, json=said("hi", "pair")).json()["error"]["code"] == "authorize.unknown_use_case"
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["chat"]
        assert other.post(CHAT, json=said("hi")).json()["error"]["code"] == "identify.unknown_tenant"
        assert client.post(CHAT, json=said("hi", "chat")).status_code == 200
        put(server, base)
        until(lambda: client.post(CHAT, json=said("hi", "gpt-4o")).status_code == 200)


def test_a_lowered_budget_refuses_at_once(server: Deployment, base: str) -> None:
    """Below what is already charged: nothing more is admitted, on either worker; raised again, all is well."""
    with load(server, "chat") as statuses:
        until(lambda: statuses.count(200) > 20)
        low = put(
            server, base.replace("budget: {usd: 100, per: month, zone", 'budget: {usd: "0.0000001", per: month, zone')
        )
        until(lambda: readiness(server)["digest"] == low)
    rows = server.rows("subject like 'load-chat-%%'")
    under_low = [row for row in rows if row["manifest_digest"] == low]
    assert under_low
    assert {(row["outcome"], row["refusal_code"]) for row in under_low} == {("refused", "reserve.budget_exhausted")}
    assert {row["outcome"] for row in rows if row["manifest_digest"] != low} == {"served"}
    assert set(statuses) == {200, 429}
    high = put(server, base)
    until(lambda: readiness(server)["digest"] == high)
    with server.client() as client:
        assert client.post(CHAT, json=said("hi")).status_code == 200


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2] + "\n\t: {",
        lambda text: text.replace("models: [one]", "models: [nowhere]"),
        lambda text: text.replace("shipworthy: 1", "shipworthy: 1\nunheard_of: true"),
        lambda text: "",
    ],
    ids=["no-yaml", "names-nothing", "unknown-key", "empty"],
)
def test_a_bad_manifest_changes_nothing(server: Deployment, base: str, spoil: Callable[[str], str]) -> None:
    before = readiness(server)["digest"]
    with load(server, "pair") as statuses:
        server.config.write_text(spoil(base))
        until(lambda: readiness(server)["status"] == "degraded")
        assert readiness(server)["digest"] == before
        time.sleep(0.3)
        server.config.write_text(base)
        until(lambda: readiness(server)["status"] == "ready")
    assert set(statuses) == {200}
    assert readiness(server)["digest"] == before


@pytest.mark.parametrize(
    ("old", "new", "section"),
    [
        ("workers: 2", "workers: 3", "server"),
        ("keys: {file: keys.json}", "keys: {file: other.json}", "keys"),
        ("admin: {port: 0}", "admin: {port: 1}", "admin"),
    ],
)
def test_what_cannot_change_is_refused_with_its_reason(
    server: Deployment, base: str, old: str, new: str, section: str
) -> None:
    assert old in base
    workers = server.processes("worker")
    put(server, base.replace(old, new))
    until(lambda: readiness(server)["status"] == "degraded")
    reason = f"{section} can't change while the server runs; restart it"
    assert reason in server.log
    assert reason not in str(readiness(server)), "told to the operator, not to strangers"
    assert server.processes("worker") == workers
    put(server, base)
    until(lambda: readiness(server)["status"] == "ready")


def test_hangups_without_a_change_disturb_nobody(server: Deployment, base: str) -> None:
    before = readiness(server)["digest"]
    with load(server, "chat") as statuses:
        for _ in range(20):
            os.kill(server.process.pid, signal.SIGHUP)
            time.sleep(0.05)
    assert set(statuses) == {200}
    assert readiness(server) == readiness(server) | {"digest": before, "status": "ready"}


def test_the_server_is_well_afterwards(server: Deployment, base: str) -> None:
    server.await_no_holds()
    charged = sum(row["charged_nano"] for row in server.rows("tenant = 'acme'"))
    for counter in server.sql("select * from counter where tenant = 'acme'"):
        assert (counter["charged_nano"], counter["held_nano"]) == (charged, 0)
    assert len(server.processes("worker")) == 2
    errors = [line for line in server.log.splitlines() if '"level":"error"' in line]
    assert all('"event":"reloaded"' in line for line in errors), "the refused manifests, and nothing else"

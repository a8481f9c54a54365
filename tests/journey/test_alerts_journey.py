"""Budget alerts of a real server: said and posted within seconds of the charge, and again by whoever comes after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import StoreUrls
from tests.contract.receiver import Answer, Receiver
from tests.journey.deployment import Deployment, deployment, managed, said
from tests.journey.wire import CHAT

from shipworthy.kit.webhook import DELIVERY_HEADER, SIGNATURE_HEADER, verify

SECRET = "the-secret-that-signs-and-is-never-said"
TOLD_S = 10.0
CLAIM_S = 20.0


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture(scope="module")
def server(
    module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory, receiver: Receiver
) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("alerts")
    (folder / "hook.secret").write_text(SECRET)

    def edit(text: str) -> str:
        text = text.replace(
            'budget: {usd: "0.000001", per: day}', 'budget: {usd: "0.01", per: day, alert_at: [0.1, 0.2]}'
        )
        text = text.replace("per: month, zone: Europe/Berlin}", "per: month, zone: Europe/Berlin, alert_at: [0.5]}")
        return text + f'\nalerts: {{webhook: {{url: "{receiver.url}?token=hush", secret: {{file: hook.secret}}}}}}\n'

    store, environ = managed(module_store.url, module_store.migrate_url)
    with deployment(folder, store, environ=environ, edit=edit, budget='"0.02"') as running:
        yield running


def spend(server: Deployment, tenant: str, share_of_usd: float) -> int:
    """Asks until so much was charged; how much it came to, in nano-dollars."""
    with server.client(server.token(tenant)) as client:
        for _ in range(200):
            assert client.post(CHAT, json=said("a few words " * 20)).status_code == 200
            [row] = server.sql("select sum(charged_nano)::bigint as nano from exchange where tenant = %s", tenant)
            if row["nano"] >= share_of_usd * 1e9:
                return int(row["nano"])
    raise AssertionError("200 requests cost less than that")


def events(server: Deployment, name: str, tenant: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in server.log.splitlines() if f'"event":"{name}"' in line]
    return [line for line in lines if line["tenant"] == tenant]


def test_an_alert_arrives_signed_and_stands_in_the_log(server: Deployment, receiver: Receiver) -> None:
    """Two thresholds of one budget: two alerts, in order, exact, once; the log and the command line say the same."""
    charged = spend(server, "poor", 0.002)
    posts = receiver.await_posts(2, TOLD_S)
    time.sleep(2.5)  # further looks say nothing more
    assert len(receiver.posts) == 2
    told = [json.loads(post.body) for post in posts]
    assert [(alert["tenant"], alert["level"], alert["threshold"]) for alert in told] == [
        ("poor", "tenant", "0.1"),
        ("poor", "tenant", "0.2"),
    ]
    assert told[0]["cap_usd"] == "0.010000000"
    assert 1_000_000 <= told[0]["charged_nano"] <= told[1]["charged_nano"] <= charged
    for post in posts:
        verify(SECRET, post.headers[SIGNATURE_HEADER], post.body, time.time(), 60)
    observed = events(server, "budget_alert", "poor")
    assert [line["threshold"] for line in observed] == ["0.1", "0.2"]
    assert [line["alert_id"] for line in observed] == [post.headers[DELIVERY_HEADER] for post in posts]
    listed = cli(server, "cost", "alerts", "--json", "--tenant", "poor")["alerts"]
    assert [(alert["threshold"], alert["delivery"], alert["last_status"]) for alert in listed] == [
        ("0.2", "delivered", 200),
        ("0.1", "delivered", 200),
    ]


def test_killed_in_the_middle_of_a_post_it_is_posted_again_under_the_same_id(
    server: Deployment, receiver: Receiver
) -> None:
    """kill -9 after the receiver has it and before anyone noted so: at least once means twice, and the id tells."""
    receiver.posts.clear()
    receiver.answers.append(Answer(silent_s=8))
    spend(server, "acme", 0.01)
    receiver.await_posts(1, TOLD_S)
    [process] = server.processes("control")
    os.kill(process, signal.SIGKILL)
    first, again = receiver.await_posts(2, CLAIM_S + 2 * TOLD_S)
    assert first.headers[DELIVERY_HEADER] == again.headers[DELIVERY_HEADER]
    assert first.body == again.body
    assert again.at - first.at >= CLAIM_S - 1
    verify(SECRET, again.headers[SIGNATURE_HEADER], again.body, time.time(), 60)
    deadline = time.monotonic() + TOLD_S
    while server.sql("select count(*) as n from alert where delivery = 'pending'")[0]["n"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.sql("select delivery, tries from alert where tenant = 'acme' and key = 'tenant'") == [
        {"delivery": "delivered", "tries": 2}
    ]


def test_neither_secret_nor_address_is_in_the_log(server: Deployment, receiver: Receiver) -> None:
    """Canary over everything that the processes said, failures included."""
    assert events(server, "alert_posted", "poor")
    assert SECRET not in server.log
    assert "token=hush" not in server.log
    assert all(receiver.url not in line for line in server.log.splitlines())
    assert all(post.path == "/told?token=hush" for post in receiver.posts)


def cli(server: Deployment, *words: str) -> dict[str, list[dict[str, object]]]:
    ran = subprocess.run(
        [sys.executable, "-m", "shipworthy", *words, "-c", str(server.config)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, list[dict[str, object]]] = json.loads(ran.stdout)
    return found

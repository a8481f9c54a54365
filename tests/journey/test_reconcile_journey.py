"""The books of a running server: counters, rows and the provider's own log agree; what is changed by hand is found."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from tests.journey.deployment import Deployment, said
from tests.journey.wire import CHAT

REQUESTS = 40


def command(server: Deployment, *words: str) -> subprocess.CompletedProcess[str]:
    shell = [sys.executable, "-m", "shipworthy", "cost", *words, "-c", str(server.config)]
    return subprocess.run(shell, check=False, capture_output=True, text=True, timeout=90)


def balance(server: Deployment) -> tuple[int, dict]:
    done = command(server, "reconcile", "--json")
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def asked(server: Deployment, count: int, stream: bool = False) -> None:
    with server.client() as client:
        for _ in range(count):
            answer = client.post(CHAT, json=said("hi", stream=stream))
            assert answer.status_code == 200, answer.text


def their_log(server: Deployment, folder: Path) -> Path:
    """What the provider billed, request by request, under the id that it was sent."""
    lines = ["date,model,requests,input_tokens,output_tokens,client_request_id"]
    for entry in server.providers.first.log:
        day, request_id = datetime.now(UTC).date(), entry.headers["x-client-request-id"]
        lines.append(f"{day},up-one-2026-01-31,1,{entry.billed_input},{entry.billed_output},{request_id}")
    path = folder / "their-log.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def busy(server: Deployment) -> Deployment:
    """Half of the requests are streams."""
    asked(server, REQUESTS // 2)
    asked(server, REQUESTS // 2, stream=True)
    server.await_rows(REQUESTS)
    server.await_no_holds()
    return server


def test_books_agree_while_the_server_is_at_work(busy: Deployment) -> None:
    spending = threading.Thread(target=asked, args=(busy, 60))
    spending.start()
    try:
        code, found = balance(busy)
    finally:
        spending.join()
    assert (code, found["differences"], found["unchecked"]) == (0, [], [])
    assert found["counters"] >= 2
    busy.await_no_holds()
    code, found = balance(busy)
    charged = sum(row["charged_nano"] for row in busy.rows("tenant = 'acme'"))
    assert (code, found["charged_usd"]) == (0, f"{2 * charged / 10**9:.9f}")  # the tenant's level and the team's


def test_the_record_is_what_the_provider_billed(busy: Deployment, tmp_path: Path) -> None:
    log = their_log(busy, tmp_path)
    words = ("reconcile", "--usage", str(log), "--provider", "first")
    done = command(busy, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "up-one-2026-01-31 → up-one (by its dated snapshot)" in done.stdout
    log.write_text("\n".join(log.read_text().splitlines()[:-1]))
    assert "figures differ" in command(busy, *words).stdout


def test_a_correction_and_its_counter_move_together(busy: Deployment, module_store) -> None:
    spent = busy.rows("tenant = 'acme' and charged_nano > 0")[0]
    words = ("correct", str(spent["id"]), "--usd", "-0.000001", "--because", "a test", "--json")
    done = command(busy, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["charged_nano"] == spent["charged_nano"] - 1_000
    assert json.loads(command(busy, *words).stdout)["added"] is False
    assert balance(busy)[0] == 0
    with psycopg.connect(module_store.superuser_url, autocommit=True) as conn:
        conn.execute(
            "update shipworthy.counter set charged_nano = charged_nano - 7 where tenant = 'acme' and key = 'tenant'"
        )
        code, found = balance(busy)
        assert (code, [each["difference"] for each in found["differences"]]) == (1, [-7])
        conn.execute(
            "update shipworthy.counter set charged_nano = charged_nano + 7 where tenant = 'acme' and key = 'tenant'"
        )
    assert balance(busy)[0] == 0

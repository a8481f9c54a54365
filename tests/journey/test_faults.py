"""Every fault of the scripted provider, streamed and not, with and without another model to fall back to.

Each fault has models, and so circuits, of its own; all of them meet the server at once. Promises: one outcome, at most one
charge for each attempt, the sum of the charge lines is the charge, nothing stays held, and the server is well afterwards.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from tests.conftest import StoreUrls
from tests.journey.deployment import Deployment, deployment, managed, said

from shipworthy.kit.scripted_config import FAULTS, ScriptedConfig
from shipworthy.kit.scripted_faults import EFFECTS, When
from shipworthy.kit.scripted_log import Ended
from shipworthy.kit.scripted_server import closed_port
from shipworthy.model.errors import FailureKind

CHAT = "/v1/chat/completions"
FIRST_TOKEN_MS, TOTAL_MS = 3_000, 7_000
AT_ONCE = 16
RETRY_PACE_S = 0.21
"""A fallback takes one of five retries a second that a server always has."""
WORDS = {
    "drip": "drip delay_ms=0",
    "slow": "slow delay_ms=40",
    "late-head": "late-head delay_ms=300",
    "429": "429 retry_after_s=1",
    "huge": "huge size_bytes=4000000",
}
ANSWER = "This is a scripted answer. You said: "

Case = tuple[str, str, bool]
CASES: list[Case] = [
    (fault, shape, stream) for shape in ("chat", "pair") for fault in (*FAULTS, "gone") for stream in (True, False)
]

MODEL = """
  {name}: {{provider: {provider}, upstream: up-{name}, abilities: [chat], context_tokens_max: 100000,
    output_tokens_max: 4096, price: {{input_usd_per_mtok: 1, output_usd_per_mtok: 4}}}}"""
USE_CASE = """
  {name}: {{job: Answer., done: {{right: a, wrong: b, refuse: c}}, owner: support, risk: minimal, data_class: internal,
    mode: enforce, tokens: {{input_max: 10000, output_max: 100}}, route: {{strategy: first, models: {models}}}}}"""
GONE = """
  gone: {kind: openai-compatible, base_url: "http://127.0.0.1:PORT/v1", boundary: {regions: [eu], network: private}}
"""


def with_models(text: str) -> str:
    """The manifest with models and a use case for every meeting, and a provider that is not there."""
    models = use_cases = ""
    for fault, shape, stream in CASES:
        name = name_of(fault, shape, stream)
        models += MODEL.format(name=name, provider="gone" if fault == "gone" else "first")
        models += MODEL.format(name=f"{name}-spare", provider="second")
        use_cases += USE_CASE.format(name=name, models=f"[{name}, {name}-spare]" if shape == "pair" else f"[{name}]")
    text = text.replace(
        "first_token_ms: 1500, total_ms: 6000", f"first_token_ms: {FIRST_TOKEN_MS}, total_ms: {TOTAL_MS}"
    )
    text = text.replace(
        "credentials: {file: provider.key}", "credentials: {file: provider.key}\n    reply_bytes_max: 1000000"
    )
    text = text.replace("\nmodels:", GONE.replace("PORT", str(closed_port())) + "models:" + models)
    return text.replace("\nuse_cases:", "\nuse_cases:" + use_cases)


def name_of(fault: str, shape: str, stream: bool) -> str:
    return f"{shape}-{fault}-{'stream' if stream else 'whole'}"


@dataclass(frozen=True)
class Meeting:
    """One request that met a fault, and its row."""

    status: int
    body: bytes
    row: dict[str, Any]

    @property
    def code(self) -> str:
        if self.body.startswith(b"{"):
            return str(json.loads(self.body).get("error", {}).get("code", ""))
        last = self.body.rstrip().rpartition(b"data: ")[2]
        return str(json.loads(last)["error"]["code"]) if last.startswith(b'{"error"') else ""

    @property
    def kinds(self) -> list[str]:
        return [attempt["failure"] for attempt in self.row["attempts"]]


@pytest.fixture(scope="module")
def server(module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("faults")
    store, environ = managed(module_store.url, module_store.migrate_url)
    second = ScriptedConfig()  # without markers: the fallback answers
    with deployment(folder, store, environ=environ, edit=with_models, second=second) as running:
        yield running


@pytest.fixture(scope="module")
def meetings(server: Deployment) -> dict[Case, Meeting]:
    """All of them, many at a time."""
    found: dict[Case, Meeting] = {}
    with server.client(limits=httpx.Limits(max_connections=AT_ONCE)) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        running = {}
        for case in CASES:
            running[case] = pool.submit(meet, server, client, case)
            if case[1] == "pair":
                time.sleep(RETRY_PACE_S)
        for case, meeting in running.items():
            found[case] = meeting.result(60)
    return found


def meet(server: Deployment, client: httpx.Client, case: Case) -> Meeting:
    fault, _, stream = case
    marker = WORDS.get(fault, fault)
    text = "hello" if fault == "gone" else f"hello [[fault:{marker}]]"
    with client.stream("POST", CHAT, json=said(text, name_of(*case), stream=stream)) as response:
        body = b"".join(response.iter_raw())
    return Meeting(response.status_code, body, server.row(response.headers["x-shipworthy-request-id"]))


def expected(case: Case) -> tuple[str, str, list[str]]:
    """Outcome, code and kinds of failure, as the kit declares the fault."""
    fault, shape, stream = case
    if fault == "gone":
        return ("served", "", ["connect", ""]) if shape == "pair" else ("failed", "call.failed", ["connect"])
    effect = EFFECTS[fault]
    if effect.when is When.NEVER or (fault == "no-done" and not stream):
        return "served", "", [""]
    kind = str(effect.kind)
    if fault == "connect":
        kind = "broken"  # on the wire it is a connection that is reset: only the in-process script can say more
    if effect.kind is FailureKind.REJECTED:
        return "failed", "call.rejected", [kind]
    if effect.when is When.MIDWAY and stream:
        return "cut", "call.cut", [kind]
    if effect.when is When.WAITING:
        if fault == "hang-midway" and stream:
            return "cut", "call.cut", ["total_timeout"]
        if shape == "pair":
            return "served", "", ["first_token_timeout", ""]
        return "failed", "call.timeout", ["first_token_timeout"]
    return ("served", "", [kind, ""]) if shape == "pair" else ("failed", "call.failed", [kind])


@pytest.mark.parametrize("shape", ["chat", "pair"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("fault", [*FAULTS, "gone"])
def test_each_fault_ends_in_its_one_outcome(
    meetings: dict[Case, Meeting], fault: str, stream: bool, shape: str
) -> None:
    case = (fault, shape, stream)
    meeting = meetings[case]
    outcome, code, kinds = expected(case)
    row = meeting.row
    assert (row["outcome"], row["refusal_code"], meeting.kinds) == (outcome, code, kinds), row["refusal_detail"]
    assert meeting.code == code
    assert (meeting.status == 200) == (outcome in ("served", "cut"))
    assert row["charged_nano"] == sum(line["amount_nano"] for line in row["charge_lines"])
    assert {line["attempt"] for line in row["charge_lines"]} <= set(range(len(kinds)))
    assert row["model"] == ("" if outcome == "failed" else row["attempts"][-1]["model"])
    if outcome == "served":
        assert b"scripted" in meeting.body
        assert meeting.body.endswith(b"data: [DONE]\n\n") == stream
    if outcome == "failed" and fault not in ("hang", "hang-after-head", "hang-midway") and not stream:
        assert b"up-" not in meeting.body, "what stands behind a use case is not told"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_provider_that_lies_about_usage_is_caught(meetings: dict[Case, Meeting], stream: bool) -> None:
    honest = meetings["drip", "chat", stream].row
    tenfold = meetings["usage-x10", "chat", stream].row
    assert tenfold["usage"]["output"] > 10 * 8
    assert tenfold["charged_nano"] > 8 * honest["charged_nano"], "what a provider reports is what it bills"
    missing = meetings["usage-missing", "chat", stream].row
    assert missing["usage"] is None
    assert "usage_counted" in missing["flags"]
    assert missing["charged_nano"] > 0
    negative = meetings["usage-negative", "chat", stream].row
    assert {"usage_refused", "usage_counted"} <= set(negative["flags"])
    assert negative["charged_nano"] > 0
    zero = meetings["usage-zero", "chat", stream].row
    assert "usage_implausible" in zero["flags"]


def test_a_charge_beyond_the_hold_is_named(server: Deployment) -> None:
    """A provider that used more than was held is charged in full, and the excess has a name."""
    with server.client() as client:
        body = said("hello [[fault:usage-x10]] " + "and more " * 20, "chat-usage-x10-whole", max_tokens=12)
        response = client.post(CHAT, json=body)
        row = server.row(response.headers["x-shipworthy-request-id"])
    assert row["overrun_nano"] == row["charged_nano"] - row["held_nano"] > 0
    assert "overrun" in row["flags"]
    assert row["charged_nano"] == sum(line["amount_nano"] for line in row["charge_lines"])


def test_what_may_have_been_billed_is_charged_once(meetings: dict[Case, Meeting]) -> None:
    """An attempt that the provider answered with an error status costs nothing; one that it may have read, its input."""
    for (fault, shape, _), meeting in meetings.items():
        if shape != "pair" or meeting.kinds[-1]:
            continue
        first = [line for line in meeting.row["charge_lines"] if line["attempt"] == 0]
        second = [line for line in meeting.row["charge_lines"] if line["attempt"] == 1]
        if len(meeting.kinds) == 1:
            assert not second
            continue
        assert {line["component"] for line in second} == {"input_tokens", "output_tokens"}
        told = fault in ("401", "404", "429", "500", "503", "redirect", "gone")
        assert [line["component"] for line in first] == ([] if told else ["input_tokens"]), fault


def test_money_adds_up_and_nothing_stays_held(server: Deployment, meetings: dict[Case, Meeting]) -> None:
    server.await_no_holds()
    rows = server.rows("tenant = 'acme'")
    assert len(rows) >= len(meetings)
    assert len({row["id"] for row in rows}) == len(rows)
    for counter in server.sql("select * from counter where tenant = 'acme'"):
        assert counter["held_nano"] == 0
        assert counter["charged_nano"] == sum(row["charged_nano"] for row in rows), counter["key"]
    assert server.sql("select sum(in_flight) as n from pace")[0]["n"] == 0


def test_no_connection_to_a_provider_is_left_behind(server: Deployment, meetings: dict[Case, Meeting]) -> None:
    """Whoever hung sees its connection closed: it is not asked to go on."""
    deadline = time.monotonic() + 5
    while any(entry.ended is Ended.OPEN for entry in server.providers.first.log) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [entry.fault for entry in server.providers.first.log if entry.ended is Ended.OPEN] == []


def test_the_server_is_well_afterwards(server: Deployment, meetings: dict[Case, Meeting]) -> None:
    with server.client() as client:
        assert client.get("/readyz").json()["status"] == "ready"
        for use_case in ("chat", "pair"):
            answer = client.post(CHAT, json=said("hello", use_case)).json()
            assert answer["choices"][0]["message"]["content"] == ANSWER + "hello"
    errors = [line for line in server.log.splitlines() if '"level":"error"' in line]
    assert errors == []

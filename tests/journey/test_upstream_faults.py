"""Each fault of a provider, met by a whole server: one outcome, at most one charge, nothing held, and it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from tests.conftest import StoreUrls
from tests.journey.deployment import Deployment, deployment, managed, said

from shipworthy.kit.scripted_config import FAULTS, ScriptedConfig
from shipworthy.kit.scripted_faults import EFFECTS, When
from shipworthy.model.errors import FailureKind

CHAT = "/v1/chat/completions"
HASTY = "{connect_ms: 500, first_token_ms: 500, total_ms: 1200}"
CODES = {FailureKind.REJECTED: "call.rejected", FailureKind.FIRST_TOKEN_TIMEOUT: "call.timeout"}
ON_THE_WIRE = [fault for fault in FAULTS if fault != "connect"]


@pytest.fixture(scope="module")
def server(module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("faults")
    store, environ = managed(module_store.url, module_store.migrate_url)

    def edit(text: str) -> str:
        patient = "{connect_ms: 500, first_token_ms: 1500, total_ms: 6000}"
        assert patient in text
        return text.replace(patient, f"{HASTY}\n    reply_bytes_max: 1048576", 1)

    with deployment(folder, store, environ=environ, edit=edit, second=ScriptedConfig()) as running:
        yield running


def ask(server: Deployment, fault: str, use_case: str, stream: bool) -> httpx.Response:
    """A request that meets ``fault``; before it two that do not, so that the circuit stays closed."""
    with server.client() as client:
        for _ in range(2):
            assert client.post(CHAT, json=said("Good morning.", use_case)).status_code == 200
        delay_ms = 0 if fault == "drip" else 20
        text = f"[[fault:{fault} delay_ms={delay_ms} size_bytes=4000000]]"
        return client.post(CHAT, json=said(text, use_case, stream=stream))


def events(response: httpx.Response) -> list[Any]:
    """The payloads of a stream, parsed; [DONE] as itself."""
    payloads = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


def settled(server: Deployment, response: httpx.Response) -> dict[str, Any]:
    """The one row of the exchange, with every promise that holds whatever happened."""
    row = server.row(response.headers["x-shipworthy-request-id"])
    server.await_no_holds()
    assert row["charged_nano"] == sum(line["amount_nano"] for line in row["charge_lines"])
    assert {line["attempt"] for line in row["charge_lines"]} <= {attempt["number"] for attempt in row["attempts"]}
    assert sum(not attempt["failure"] for attempt in row["attempts"]) <= 1
    return row


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ON_THE_WIRE)
def test_a_fault_ends_in_one_outcome(fault: str, stream: bool, server: Deployment) -> None:
    """Refused with a code before the first byte, cut with an error event after it, served when nothing is really wrong."""
    effect = EFFECTS[fault]
    response = ask(server, fault, "chat", stream)
    row = settled(server, response)
    if effect.when is When.NEVER:
        assert response.status_code == 200
        assert row["outcome"] == "served"
        return
    begun = stream and (effect.when is When.MIDWAY or fault == "hang-midway")
    if begun:
        assert response.status_code == 200
        assert (row["outcome"], row["refusal_code"]) == ("cut", "call.cut")
        assert events(response)[-1]["error"]["code"] == "call.cut"
        assert row["charged_nano"] > 0
    else:
        kind = FailureKind.FIRST_TOKEN_TIMEOUT if effect.when is When.WAITING else effect.kind
        assert kind is not None
        assert response.json()["error"]["code"] == CODES.get(kind, "call.failed")
        assert row["outcome"] == "failed"
        assert [attempt["failure"] for attempt in row["attempts"]] == [kind.value]
        if row["attempts"][0]["status"] not in (0, 200):
            assert row["charged_nano"] == 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", [f for f in ON_THE_WIRE if EFFECTS[f].when is When.HEAD and f != "400"])
def test_the_next_model_rescues_the_request(fault: str, stream: bool, server: Deployment) -> None:
    """Until the first delta another model may answer; the record holds both attempts and why the first failed."""
    effect = EFFECTS[fault]
    assert effect.kind is not None
    response = ask(server, fault, "pair", stream)
    row = settled(server, response)
    assert response.status_code == 200
    assert (row["outcome"], row["model"]) == ("served", "two")
    assert [attempt["failure"] for attempt in row["attempts"]] == [effect.kind.value, ""]
    assert {line["model"] for line in row["charge_lines"]} >= {"two"}


def test_the_provider_and_the_record_agree_on_what_was_billed(server: Deployment) -> None:
    """Whatever an honest provider billed for an exchange that it answered is what the record charges, to the token."""
    log = server.providers.first.log
    before = log.received
    with server.client() as client:
        for number in range(5):
            for stream in (True, False):
                body = said("count these words " * (number + 1), stream=stream, n=number + 1)
                assert client.post(CHAT, json=body).status_code == 200
    billed = [entry for entry in log if entry.number > before]
    rows = server.rows()[-len(billed) :]
    charged = [
        sum(line["quantity"] for line in row["charge_lines"] if line["component"] == f"{side}_tokens")
        for row in rows
        for side in ("input", "output")
    ]
    assert charged == [tokens for entry in billed for tokens in (entry.billed_input, entry.billed_output)]


def test_a_secret_in_an_error_stays_out_of_record_and_log(server: Deployment) -> None:
    """The provider's key reaches the provider, and nothing else."""
    key = "provider-key-that-only-the-upstream-sees"
    ask(server, "401", "chat", False)
    assert server.providers.first.log[-1].headers["authorization"] == f"Bearer {key}"
    assert key not in server.log
    assert not server.rows("attempts::text like %s or refusal_detail like %s", f"%{key}%", f"%{key}%")

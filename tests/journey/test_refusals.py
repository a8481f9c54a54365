"""Every no of the request path as a client meets it: status, code, hint, request id; a row or none; nothing paid or held."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2 as httpx
import pytest
from tests.conftest import StoreUrls
from tests.journey import wire
from tests.journey.deployment import Deployment, deployment, managed, said

from shipworthy.kit.scripted_config import ScriptedConfig
from shipworthy.model import service_key

TENANTS = """
  hurried:
    limits: {requests_per_min: 2}
    teams: {all: {}}
    roles: {member: {groups: [agents], team: all, use_cases: ["*"], clearance: internal}}
  narrow:
    limits: {concurrent: 1}
    teams: {all: {}}
    roles: {member: {groups: [agents], team: all, use_cases: ["*"], clearance: internal}}
  wordy:
    limits: {tokens_per_min: 400}
    teams: {all: {}}
    roles: {member: {groups: [agents], team: all, use_cases: ["*"], clearance: internal}}
  confined:
    teams: {all: {}}
    roles: {member: {groups: [agents], team: all, use_cases: [embed], clearance: internal}}
providers:
"""
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def server(module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("refusals")
    store, environ = managed(module_store.url, module_store.migrate_url)
    edit = lambda text: text.replace("\nproviders:\n", TENANTS)  # noqa: E731
    first = ScriptedConfig(allow_markers=True)
    with deployment(folder, store, environ=environ, edit=edit, first=first) as running:
        yield running


def check(server: Deployment, response: httpx.Response | wire.Answer, status: int, code: str, rows: int) -> Any:
    """The whole promise about one refusal; returns its error."""
    answer = response if isinstance(response, wire.Answer) else _answer(response)
    assert answer.status == status, answer
    assert answer.json()["error"]["code"] == code
    error = answer.json()["error"]
    assert error["message"]
    assert error["hint"]
    assert error["type"]
    assert answer.headers["content-type"] == "application/json"
    request_id = UUID(answer.headers["x-shipworthy-request-id"])
    found = server.await_rows(rows, "id = %s", request_id)
    assert len(found) == rows
    for row in found:
        assert (row["outcome"], row["refusal_code"]) == ("refused", code)
        assert (row["charged_nano"], row["charge_lines"], row["attempts"]) == (0, [], [])
        assert row["manifest_digest"]
    server.await_no_holds()
    held = server.sql("select coalesce(sum(held_nano), 0) as n from counter")[0]["n"]
    assert held == 0
    return error


def _answer(response: httpx.Response) -> wire.Answer:
    return wire.Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, response.content)


def raw(server: Deployment, content: bytes) -> wire.Answer:
    with wire.connect(server.base) as sock:
        sock.sendall(content)
        return wire.read_answer(sock)


def forged(token: str, **claims: object) -> str:
    """``token`` with other claims under its old signature."""
    header, payload, signature = token.split(".")
    said_before = json.loads(base64.urlsafe_b64decode(payload + "=="))
    changed = base64.urlsafe_b64encode(json.dumps(said_before | claims).encode()).rstrip(b"=").decode()
    return f"{header}.{changed}.{signature}"


def unsigned(token: str) -> str:
    payload = token.split(".")[1]
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return f"{header}.{payload}."


# ------------------------------------------------------------------------------------------- before identity: no row


def test_tokens_that_prove_nothing(server: Deployment) -> None:
    good = server.token()
    cases: list[tuple[str, str]] = [
        (forged(good, sub="root"), "identify.bad_signature"),
        (unsigned(good), "identify.algorithm_refused"),
        (server.token(ttl_s=3600, age_s=7200), "identify.expired"),
        (forged(good, iss="https://other.example"), "identify.unknown_issuer"),
        ("a.b.c", "identify.malformed"),
        (service_key.mint().reveal(), "identify.key_unknown"),
        ("sk-mistyped", "identify.malformed"),
        ("x" * 25_000, "server.header_invalid"),
    ]
    with server.client() as client:
        for token, code in cases:
            response = client.post(CHAT, json=said("hi"), headers={"authorization": f"Bearer {token}"})
            status = 400 if code.startswith("server") else 401
            check(server, response, status, code, rows=0)
            if status == 401:
                assert response.headers["www-authenticate"] == "Bearer"


def test_credentials_in_more_than_one_place(server: Deployment) -> None:
    one, two = server.token(), server.token(subject="bob")
    with httpx.Client(base_url=server.base, trust_env=False) as client:
        missing = client.post(CHAT, json=said("hi"))
        check(server, missing, 401, "identify.missing_credential", rows=0)
        differing = client.post(CHAT, json=said("hi"), headers={"authorization": f"Bearer {one}", "x-api-key": two})
        check(server, differing, 401, "identify.conflicting_credentials", rows=0)
        doubled = client.post(
            CHAT, json=said("hi"), headers=[("authorization", f"Bearer {one}"), ("authorization", f"Bearer {two}")]
        )
        check(server, doubled, 401, "identify.conflicting_credentials", rows=0)
        same = client.post(CHAT, json=said("hi"), headers={"authorization": f"Bearer {one}", "x-api-key": one})
        assert same.status_code == 200, "the same credential twice is one"
        basic = client.post(CHAT, json=said("hi"), headers={"authorization": "Basic eDp5"})
        check(server, basic, 401, "identify.malformed", rows=0)


def test_a_tenant_that_is_not_known(server: Deployment) -> None:
    with server.client(server.token("nobody")) as client:
        check(server, client.post(CHAT, json=said("hi")), 403, "identify.unknown_tenant", rows=0)


def test_what_is_not_there(server: Deployment) -> None:
    with server.client() as client:
        for method, path, status, code in (
            ("GET", CHAT, 405, "server.method_not_allowed"),
            ("DELETE", CHAT, 405, "server.method_not_allowed"),
            ("POST", "/v1/models", 405, "server.method_not_allowed"),
            ("POST", "/v1/completions", 404, "server.not_found"),
            ("GET", "/", 404, "server.not_found"),
            ("GET", "/admin/v1/exchanges", 404, "server.not_found"),
            ("POST", CHAT + "/", 404, "server.not_found"),
            ("POST", "/v1//chat/completions", 404, "server.not_found"),
        ):
            response = client.request(method, path)
            check(server, response, status, code, rows=0)
            assert ("allow" in response.headers) == (status == 405)


def test_headers_that_could_be_read_two_ways(server: Deployment) -> None:
    token = server.token()
    for line in (
        "x-shipworthy-session: a\x01b",
        "x-shipworthy-session: caf\xe9",
        "idempotency-key: " + "k" * 257,
        "x-shipworthy-data-class: internal\r\nx-shipworthy-data-class: public",
    ):
        answer = raw(server, wire.request(token, said("hi"), line))
        if answer.headers["content-type"].startswith("text/plain"):
            assert answer.status == 400, "the parser itself refuses control characters"
        else:
            check(server, answer, 400, "server.header_invalid", rows=0)


def test_bytes_that_are_no_http(server: Deployment) -> None:
    token = server.token()
    smuggled = wire.head(token, "content-type: application/json", "content-length: 5", "transfer-encoding: chunked")
    for content in (b"\x16\x03\x01\x02\x00garbage\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", smuggled + b"0\r\n\r\n"):
        assert raw(server, content).status == 400
    with server.client() as client:
        assert client.post(CHAT, json=said("hi")).status_code == 200


# ------------------------------------------------------------------------------------------- decode: a row, nothing paid


def test_bodies_that_cannot_be_read(server: Deployment) -> None:
    deep = b'{"model":"chat","messages":' + b"[" * 1_000 + b"]" * 1_000 + b"}"
    cases: list[tuple[bytes, str]] = [
        (b"", "decode.not_json"),
        (b'{"model":"chat","messages":[', "decode.not_json"),
        (b'{"model":"chat","messages":[{"role":"user","content":"\xff\xfe"}]}', "decode.not_utf8"),
        (deep, "decode.too_deep"),
        (b'{"model":"chat","messages":[],"model":"pair"}', "decode.duplicate_key"),
        (b'{"messages":[{"role":"user","content":"hi"}]}', "decode.missing_field"),
        (b'{"model":"chat","messages":"hi"}', "decode.wrong_type"),
        (b'{"model":"chat","messages":[{"role":"user","content":"hi"}],"n":NaN}', "decode.not_json"),
        (b'{"model":"chat","messages":[' + b'{"role":"user","content":"hi"},' * 5_000 + b"{}]}", "decode.too_many"),
    ]
    with server.client() as client:
        for body, code in cases:
            response = client.post(CHAT, content=body, headers={"content-type": "application/json"})
            check(server, response, 400, code, rows=1)


def test_bodies_that_are_not_plain_json(server: Deployment) -> None:
    body = json.dumps(said("hi")).encode()
    with server.client() as client:
        for headers in ({"content-type": "text/plain"}, {}, {"content-type": "multipart/form-data; boundary=x"}):
            check(server, client.post(CHAT, content=body, headers=headers), 415, "decode.media_type", rows=1)
        for encoding in ("gzip", "br", "identity, gzip"):
            headers = {"content-type": "application/json", "content-encoding": encoding}
            check(server, client.post(CHAT, content=body, headers=headers), 415, "decode.encoding", rows=1)
        headers = {"content-type": "Application/JSON; charset=utf-8", "content-encoding": "identity"}
        assert client.post(CHAT, content=body, headers=headers).status_code == 200


def test_a_body_that_announces_too_much_is_refused_unread(server: Deployment) -> None:
    announced = wire.head(server.token(), "content-type: application/json", f"content-length: {1 << 40}")
    began = time.monotonic()
    check(server, raw(server, announced), 413, "decode.too_large", rows=1)
    assert time.monotonic() - began < 5


def test_a_body_that_grows_too_large_is_refused(server: Deployment) -> None:
    top = wire.head(server.token(), "content-type: application/json", "transfer-encoding: chunked")
    piece = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    with wire.connect(server.base) as sock:
        sock.sendall(top)
        for _ in range(34):
            sock.sendall(piece)
        check(server, wire.read_answer(sock), 413, "decode.too_large", rows=1)


def test_ten_megabytes_are_served(server: Deployment) -> None:
    with server.client() as client:
        response = client.post(CHAT, json=said("word " * 2_000_000))
        assert response.status_code == 200, response.text
        row = server.row(response.headers["x-shipworthy-request-id"])
    assert row["outcome"] == "served"
    assert row["request_bytes"] > 10_000_000
    assert len(server.providers.first.log[-1].body) > 10_000_000


# ------------------------------------------------------------------------------------------- authorize


def test_what_policy_does_not_allow(server: Deployment) -> None:
    agent, admin = server.token(), server.token(subject="eve", groups=("admins",))
    web = {"tools": [{"type": "web_search_preview"}]}
    cases: list[tuple[str, dict[str, object], dict[str, str], int, str]] = [
        (agent, said("hi", "nothing"), {}, 404, "authorize.unknown_use_case"),
        (server.token(groups=("strangers",)), said("hi"), {}, 403, "authorize.no_role"),
        (server.token("confined"), said("hi"), {}, 404, "authorize.unknown_use_case"),
        (agent, said("hi", "embed"), {}, 400, "authorize.wrong_ability"),
        (agent, said("hi"), {"x-shipworthy-data-class": "public"}, 403, "authorize.data_class_lowered"),
        (agent, said("hi"), {"x-shipworthy-data-class": "secret"}, 400, "authorize.unknown_data_class"),
        (agent, said("hi"), {"x-shipworthy-data-class": "restricted"}, 403, "authorize.clearance_too_low"),
        (admin, said("hi", "abroad"), {"x-shipworthy-data-class": "confidential"}, 403, "authorize.boundary"),
        (agent, said("hi", max_tokens=501), {}, 400, "authorize.output_tokens"),
        (agent, said("hi", max_completion_tokens=100_000), {}, 400, "authorize.output_tokens"),
        (agent, said("hi", n=17), {}, 400, "authorize.choices"),
        (agent, said("hi", **web), {}, 403, "authorize.hosted_tool"),
        (agent, said("hi", web_search_options={}), {}, 403, "authorize.hosted_tool"),
        (agent, said("hi", "abroad", messages=_picture()), {}, 400, "authorize.no_model"),
        (server.token(clearance="public"), said("hi"), {}, 403, "authorize.clearance_too_low"),
    ]
    upstream = server.providers.first.log.received, server.providers.second.log.received
    for token, body, headers, status, code in cases:
        with server.client(token) as client:
            check(server, client.post(CHAT, json=body, headers=headers), status, code, rows=1)
    assert (server.providers.first.log.received, server.providers.second.log.received) == upstream


def _picture() -> list[dict[str, object]]:
    return [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://pictures.example/a.png"}}]}
    ]


def test_a_raised_data_class_decides_the_model(server: Deployment) -> None:
    with server.client() as client:
        response = client.post(CHAT, json=said("hi", "pair"), headers={"x-shipworthy-data-class": "confidential"})
        row = server.row(response.headers["x-shipworthy-request-id"])
    assert (row["data_class"], row["model"]) == ("confidential", "one")
    left = [candidate for candidate in row["candidates"] if not candidate["taken"]]
    assert [candidate["model"] for candidate in left] == ["two"]
    assert left[0]["reason"].startswith("boundary:")


# ------------------------------------------------------------------------------------------- reserve


def test_a_spent_budget(server: Deployment) -> None:
    with server.client(server.token("poor")) as client:
        response = client.post(CHAT, json=said("hi"))
    error = check(server, response, 429, "reserve.budget_exhausted", rows=1)
    assert error["type"] == "insufficient_quota"
    assert "tenant" in error["message"]
    assert "day" in error["message"]
    assert response.headers["x-should-retry"] == "false"
    assert 0 < int(response.headers["retry-after"]) <= 86_400


def test_the_limit_of_requests(server: Deployment) -> None:
    """Refused requests do not count: the third is refused for as long as the first two are in the window, not longer."""
    with server.client(server.token("hurried")) as client:
        first, second = (client.post(CHAT, json=said("hi")) for _ in range(2))
        assert (first.status_code, second.status_code) == (200, 200)
        assert second.headers["x-ratelimit-remaining-requests"] == "0"
        for _ in range(3):
            third = client.post(CHAT, json=said("hi"))
            check(server, third, 429, "reserve.requests_limit", rows=1)
            assert 50 <= int(third.headers["retry-after"]) <= 61
            assert "x-should-retry" not in third.headers


def test_the_limit_of_tokens(server: Deployment) -> None:
    with server.client(server.token("wordy")) as client:
        served = client.post(CHAT, json=said("hi", max_tokens=200))
        assert served.status_code == 200, served.text
        assert int(served.headers["x-ratelimit-limit-tokens"]) == 400
        refused = client.post(CHAT, json=said("hi", max_tokens=350))
        check(server, refused, 429, "reserve.tokens_limit", rows=1)
        assert client.post(CHAT, json=said("hi", max_tokens=200)).status_code == 200, "the unused estimate came back"


def test_the_limit_of_concurrent_requests(server: Deployment) -> None:
    token = server.token("narrow")
    with ThreadPoolExecutor(1) as pool, server.client(token) as client, server.client(token) as other:
        slow = pool.submit(other.post, CHAT, json=said("[[fault:late-head delay_ms=1000]]"))
        _await_hold(server)
        refused = client.post(CHAT, json=said("hi"))
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "reserve.concurrent_limit"
        assert slow.result(10).status_code == 200
        check(server, refused, 429, "reserve.concurrent_limit", rows=1)
        assert client.post(CHAT, json=said("hi")).status_code == 200


def _await_hold(server: Deployment) -> None:
    deadline = time.monotonic() + 5
    while not server.holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------- the connection afterwards


def test_a_connection_serves_on_after_refusals(server: Deployment) -> None:
    """Refused with its body unread or read: the next request on the same connection is understood."""
    token = server.token()
    with wire.connect(server.base) as sock:
        left = bytearray()
        for content, status in (
            (wire.request("nonsense", said("x" * 5_000)), 401),
            (wire.request(token, said("hi")), 200),
            (wire.request(token, b"{nonsense"), 400),
            (wire.request(token, said("hi"), path="/nowhere"), 404),
            (wire.request(token, said("hi", "nothing")), 404),
            (wire.request(token, said("hi")), 200),
        ):
            sock.sendall(content)
            assert wire.read_answer(sock, left).status == status


def test_nothing_of_a_refusal_is_left(server: Deployment) -> None:
    """After all of the above: no money held, nothing in flight counted, and the server is well."""
    server.await_no_holds()
    assert server.sql("select coalesce(sum(in_flight), 0) as n from pace")[0]["n"] == 0
    with server.client() as client:
        assert client.get("/readyz").json()["status"] == "ready"
    assert '"level":"error"' not in server.log

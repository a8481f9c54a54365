"""The admin API answers what its OpenAPI document says, to whom it may, and records every read."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import jsonschema
import pytest
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from shipworthy.http.admin import ENDPOINTS, make_admin
from shipworthy.kit.asgi import Answer, ask
from shipworthy.kit.memory_plane import MemoryPlane, memory_plane
from shipworthy.kit.rows import ARRIVED_UNIX_NS, refused, row
from shipworthy.model.errors import StoreUnavailable
from shipworthy.model.exchange import Bodies
from shipworthy.model.observation import Failed, Refused

HOUR = 3_600 * 10**9


class Api:
    """The application over a memory plane; each answer is checked against the document before a test sees it."""

    def __init__(self, memory: MemoryPlane) -> None:
        self.memory = memory
        self.app = make_admin(memory.plane)
        self.document = json.loads(asyncio.run(ask(self.app, "GET", "/admin/v1/openapi.json")).body)
        resource = Resource(contents=self.document, specification=DRAFT202012)
        self.registry = Registry().with_resource("urn:api", resource)

    def ask(self, target: str, token: str = "northwind-admin", method: str = "GET", **body: object) -> Answer:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        content = b""
        if body:
            headers["content-type"], content = "application/json", json.dumps(body).encode()
        return self.checked(method, target, asyncio.run(ask(self.app, method, target, headers, content)))

    def checked(self, method: str, target: str, answer: Answer) -> Answer:
        path = target.partition("?")[0]
        template = next((known for known in self.document["paths"] if matches(known, path)), None)
        operation = self.document["paths"].get(template, {}).get(method.lower())
        if operation is not None:
            media = answer.headers["content-type"].partition(";")[0]
            schema = operation["responses"][str(answer.status)]["content"][media]["schema"]
            if media == "application/json":
                self.validator(schema).validate(answer.json())
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert "unsafe" not in answer.headers["content-security-policy"]
        return answer

    def validator(self, schema: dict[str, object]) -> Validator:
        pointed = json.loads(json.dumps(schema).replace('"#/', '"urn:api#/'))
        return jsonschema.Draft202012Validator(pointed, registry=self.registry)


def matches(template: str, path: str) -> bool:
    parts, said = template.split("/"), path.split("/")
    return len(parts) == len(said) and all(part in ("{id}", word) for part, word in zip(parts, said, strict=True))


@pytest.fixture
def api() -> Api:
    memory = memory_plane(
        row(),
        refused(arrived_unix_ns=ARRIVED_UNIX_NS + HOUR, subject="bob"),
        row(tenant="southwind", arrived_unix_ns=ARRIVED_UNIX_NS + 2 * HOUR),
    )
    memory.exchanges.said[memory.exchanges.rows[0].id] = Bodies(b'{"q": "\xc3\xa4\xff', b"", True)
    return Api(memory)


def code(answer: Answer) -> str:
    return str(answer.json()["error"]["code"])


def test_the_document_is_valid_and_complete(api: Api) -> None:
    assert api.document["openapi"].startswith("3.1")
    for endpoint in ENDPOINTS:
        operation = api.document["paths"][endpoint.path][endpoint.method.lower()]
        assert operation["operationId"] == endpoint.name
    for schema in api.document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_an_administrator_sees_their_tenant(api: Api) -> None:
    shown = api.ask("/admin/v1/exchanges").json()
    assert [line["subject"] for line in shown["exchanges"]] == ["bob", "alice"]
    assert {line["tenant"] for line in shown["exchanges"]} == {"northwind"}
    assert shown["next"] is None
    assert code(api.ask("/admin/v1/exchanges?tenant=southwind")) == "admin.other_tenant"
    foreign = api.memory.exchanges.rows[2].id
    assert code(api.ask(f"/admin/v1/exchanges/{foreign}")) == "admin.not_found"
    assert code(api.ask(f"/admin/v1/exchanges/{foreign}/bodies")) == "admin.not_found"


def test_an_operator_sees_every_tenant(api: Api) -> None:
    shown = api.ask("/admin/v1/exchanges", "operator").json()
    assert {line["tenant"] for line in shown["exchanges"]} == {"northwind", "southwind"}
    assert api.ask("/admin/v1/exchanges?tenant=southwind", "operator").json()["exchanges"][0]["tenant"] == "southwind"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_nobody_else_gets_anywhere(api: Api, endpoint: object) -> None:
    """No side doors: each endpoint refuses no credential, a wrong one, and one without the right."""
    target = endpoint.path.replace("{id}", str(api.memory.exchanges.rows[0].id))
    for token, status in (("", 401), ("forged", 401), ("northwind-agent", 403)):
        answer = api.ask(target, token, endpoint.method)
        assert answer.status == status
        assert set(answer.json()) == {"error"}
    assert api.memory.acts.acts == []
    assert [type(seen) for seen in api.memory.seen] == [Refused] * 3


def test_pages_go_on_by_cursor(api: Api) -> None:
    first = api.ask("/admin/v1/exchanges?limit=1").json()
    second = api.ask(f"/admin/v1/exchanges?limit=1&cursor={first['next']}").json()
    assert [first["exchanges"][0]["subject"], second["exchanges"][0]["subject"]] == ["bob", "alice"]
    assert second["next"] is None


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=²",
        "cursor=x",
        "cursor=%00",
        "cursor=" + "_" * 32,
        "outcome=gone",
        "teem=support",
        "team=a&team=b",
        "team=%00",
        "team=" + "x" * 300,
        "since=yesterday",
        "since=0001-01-01",
        "since=9999-12-31",
        "zone=Mars/Olympus",
        "zone=../../etc/passwd&since=2026-01-01",
    ],
)
def test_a_bad_parameter_is_refused_never_ignored(api: Api, query: str) -> None:
    if query == "zone=Mars/Olympus":
        query += "&since=2026-01-01"
    assert code(api.ask(f"/admin/v1/exchanges?{query}")) == "admin.invalid"
    assert api.memory.acts.acts == []


def test_one_exchange_is_explained(api: Api) -> None:
    shown = api.ask(f"/admin/v1/exchanges/{api.memory.exchanges.rows[0].id}").json()
    assert shown["exchange"]["outcome"] == "served"
    assert shown["charged_usd"] == "0.000960000"
    assert shown["explained"][0]["title"] == "In short"
    assert code(api.ask(f"/admin/v1/exchanges/{uuid4()}")) == "admin.not_found"
    assert code(api.ask("/admin/v1/exchanges/no-uuid")) == "admin.not_found"


def test_only_operators_correct_what_an_exchange_cost(api: Api) -> None:
    """Said twice it is one correction; the row stays as it is, and shows beside it what it comes to."""
    spent = api.memory.exchanges.rows[0]
    target = f"/admin/v1/exchanges/{spent.id}/corrections"
    wanted = {"usd": "-0.0001", "because": "a credit", "source": "invoice 2026-11"}
    assert code(api.ask(target, method="POST", **wanted)) == "admin.operators_only"
    made = [api.ask(target, "operator", "POST", **wanted).json() for _ in range(2)]
    assert [(each["added"], each["charged_usd"]) for each in made] == [(True, "0.000860000"), (False, "0.000860000")]
    shown = api.ask(f"/admin/v1/exchanges/{spent.id}").json()
    assert (shown["exchange"]["charged_nano"], shown["comes_to_nano"]) == (960_000, 860_000)
    assert [each["reason"] for each in shown["corrections"]] == ["a credit"]
    assert code(api.ask(target, "operator", "POST", usd="-1", because="x")) == "admin.not_corrected"
    assert code(api.ask(target, "operator", "POST", usd="much", because="x")) == "admin.invalid"
    assert code(api.ask(target, "operator", "POST", usd="1", because="x", nano=1)) == "admin.invalid"


def test_a_read_of_bodies_is_recorded_before_it_is_shown(api: Api) -> None:
    wanted = api.memory.exchanges.rows[0]
    shown = api.ask(f"/admin/v1/exchanges/{wanted.id}/bodies").json()
    assert (shown["kept"], shown["truncated"], shown["request"]) == (True, True, '{"q": "ä\ufffd')
    act = api.memory.acts.acts[-1]
    assert (act.act, act.actor, act.tenant, act.target) == ("body.read", "ann", "northwind", str(wanted.id))
    nothing = api.ask(f"/admin/v1/exchanges/{api.memory.exchanges.rows[1].id}/bodies").json()
    assert nothing["kept"] is False


def test_nothing_is_shown_when_the_read_cannot_be_recorded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: object) -> None:
        raise StoreUnavailable("disk full at /secret/path")

    monkeypatch.setattr(type(api.memory.acts), "act", lambda self, act: away(act))
    first = api.memory.exchanges.rows[0].id
    for target in ("/admin/v1/exchanges", f"/admin/v1/exchanges/{first}", f"/admin/v1/exchanges/{first}/bodies"):
        answer = api.ask(target)
        assert code(answer) == "admin.store_unavailable"
        assert "/secret/path" not in answer.text
    assert code(api.ask("/admin/v1/cost")) == "admin.store_unavailable"


def test_every_read_is_recorded(api: Api) -> None:
    api.ask("/admin/v1/exchanges?team=support", "operator")
    api.ask(f"/admin/v1/exchanges/{api.memory.exchanges.rows[0].id}", "operator")
    api.ask("/admin/v1/cost", "operator")
    api.ask("/admin/v1/keys", "operator")
    acts = [(act.act, act.actor, act.tenant) for act in api.memory.acts.acts]
    reads = ["exchanges.read", "exchange.read", "cost.read", "keys.read"]
    assert acts == [(read, "olga", "") for read in reads]
    assert api.memory.acts.acts[0].facts == {"team": "support", "limit": "50"}


def test_cost_as_json_and_csv(api: Api) -> None:
    span = "since=2026-11-21&until=2026-11-23&zone=Europe/Berlin"
    report = api.ask(f"/admin/v1/cost?by=model&{span}").json()
    assert report["total"]["charged_usd"] == "0.000960000"
    assert {line["name"] for line in report["lines"]} == {"", "small"}
    assert report["since"] == "2026-11-21T00:00:00+01:00"
    csv = api.ask(f"/admin/v1/cost?by=team&{span}&format=csv")
    assert csv.headers["content-type"].startswith("text/csv")
    assert "support" in csv.text
    assert code(api.ask("/admin/v1/cost?by=colour")) == "admin.invalid"
    assert code(api.ask("/admin/v1/cost?period=month&since=7d")) == "admin.invalid"


def test_keys_are_made_listed_and_revoked(api: Api) -> None:
    made = api.ask("/admin/v1/keys", method="POST", role="backend", name="ci", expires_days=90)
    assert made.status == 201
    assert made.json()["secret"].startswith("sk-")
    assert made.json()["key"]["tenant"] == "northwind"
    key_id = made.json()["key"]["id"]
    listed = api.ask("/admin/v1/keys")
    assert [(key["id"], key["state"]) for key in listed.json()["keys"]] == [(key_id, "active")]
    assert made.json()["secret"] not in listed.text
    assert code(api.ask(f"/admin/v1/keys/{key_id}", "southwind-admin", "DELETE")) == "admin.not_found"
    assert api.ask(f"/admin/v1/keys/{key_id}", method="DELETE").json()["state"] == "revoked"


def test_an_operator_names_the_tenant_of_a_key(api: Api) -> None:
    assert code(api.ask("/admin/v1/keys", "operator", "POST", role="backend")) == "admin.invalid"
    made = api.ask("/admin/v1/keys", "operator", "POST", role="backend", tenant="southwind")
    assert made.json()["key"]["tenant"] == "southwind"
    other = api.ask("/admin/v1/keys", "northwind-admin", "POST", role="backend", tenant="southwind")
    assert code(other) == "admin.other_tenant"


def test_bad_bodies_are_refused(api: Api) -> None:
    def post(body: bytes, media: str = "application/json") -> str:
        headers = {"authorization": "Bearer northwind-admin", "content-type": media}
        return code(asyncio.run(ask(api.app, "POST", "/admin/v1/keys", headers, body)))

    assert post(b"{") == "admin.invalid"
    assert post(b'{"role": "backend", "teanant": "x"}') == "admin.invalid"
    assert post(b'{"role": "\xff"}') == "admin.invalid"
    assert post(b"[" * 10_000) == "admin.invalid"
    assert post(b" " * 20_000) == "decode.too_large"
    assert post(b"{}", "text/plain") == "decode.media_type"
    assert api.memory.keys.keys == {}


def test_what_is_not_there_is_said_in_the_same_shape(api: Api) -> None:
    missing = api.ask("/admin/v1/nothing")
    assert (missing.status, code(missing)) == (404, "admin.not_found")
    wrong = api.ask("/admin/v1/exchanges", method="PUT")
    assert (wrong.status, code(wrong)) == (405, "server.method_not_allowed")
    assert "GET" in wrong.headers["allow"]


def test_a_defect_says_little_outside_and_all_in_the_log(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret reason")

    monkeypatch.setattr(type(api.memory.exchanges), "page", broken)
    answer = api.ask("/admin/v1/exchanges")
    assert (answer.status, code(answer)) == (500, "server.internal")
    assert "secret reason" not in answer.text
    failed = api.memory.seen[-1]
    assert isinstance(failed, Failed)
    assert "secret reason" in failed.traceback
    assert answer.json()["error"]["request_id"] == failed.exchange_id

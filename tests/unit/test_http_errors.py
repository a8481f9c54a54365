"""Every refusal has exactly one status, and the clients of each dialect can read it."""

from __future__ import annotations

import json
import string

import pytest

from shipworthy.http.errors import STATUSES, error_event, headers_of, reason_of, render, render_admin, status_of
from shipworthy.model.chat import Dialect
from shipworthy.model.errors import CODES, Refusal


def refusal(code: str, **facts: str | int | float) -> Refusal:
    """A refusal with every fact that its template wants."""
    wanted = {
        name: "something"
        for text in (CODES[code].message, CODES[code].hint)
        for _, name, _, _ in string.Formatter().parse(text)
        if name
    }
    return Refusal.of(code, {**wanted, **facts}, detail="only for the log", considered=None)


def test_every_code_has_a_status_and_none_is_left_over() -> None:
    assert set(STATUSES) == set(CODES)


@pytest.mark.parametrize("code", sorted(CODES))
@pytest.mark.parametrize("dialect", list(Dialect))
def test_every_refusal_renders_in_every_dialect(code: str, dialect: Dialect) -> None:
    """No promise without its words: code, message and hint reach the client, the detail does not."""
    rendered = render(refusal(code), dialect, "0193")
    body = json.loads(rendered.body)
    assert rendered.status == STATUSES[code]
    assert body["error"]["code"] == code
    assert body["error"]["message"] == refusal(code).message
    assert body["error"]["hint"] == refusal(code).hint
    assert b"only for the log" not in rendered.body
    assert reason_of(rendered.status)


def test_openai_shape() -> None:
    body = json.loads(render(refusal("decode.missing_field", field="messages"), Dialect.OPENAI_CHAT, "0193").body)
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["param"] == "messages"
    unknown = json.loads(render(refusal("authorize.unknown_use_case"), Dialect.OPENAI_CHAT, "0193").body)
    assert unknown["error"]["param"] == "model"
    assert json.loads(render(refusal("call.failed"), Dialect.OPENAI_CHAT, "1").body)["error"]["type"] == "server_error"


def test_anthropic_shape() -> None:
    body = json.loads(render(refusal("identify.expired"), Dialect.ANTHROPIC_MESSAGES, "0193").body)
    assert body["type"] == "error"
    assert body["error"]["type"] == "authentication_error"
    assert body["request_id"] == "0193"


def test_admin_shape() -> None:
    body = json.loads(render_admin(Refusal("admin.not_found", what="exchange", id="7"), "0193").body)
    assert body == {
        "error": {
            "code": "admin.not_found",
            "message": "There is no exchange 7 that the caller may see.",
            "hint": "Check the id; what belongs to other tenants is not shown.",
            "request_id": "0193",
        }
    }


def test_money_is_never_retried_and_waiting_is_told_in_whole_seconds() -> None:
    spent = refusal("reserve.budget_exhausted")
    spent.retry_after_s = 0.2
    assert dict(headers_of(spent)) == {"retry-after": "1", "x-should-retry": "false"}
    assert dict(headers_of(refusal("reserve.requests_limit"))) == {}
    assert ("www-authenticate", "Bearer") in headers_of(refusal("identify.expired"))


def test_errors_in_a_stream() -> None:
    name, payload = error_event(refusal("call.cut"), Dialect.OPENAI_CHAT, "1")
    assert name == ""
    assert json.loads(payload)["error"]["code"] == "call.cut"
    assert error_event(refusal("call.cut"), Dialect.ANTHROPIC_MESSAGES, "1")[0] == "error"
    name, payload = error_event(refusal("call.cut"), Dialect.OPENAI_RESPONSES, "1")
    assert (name, json.loads(payload)["type"]) == ("error", "error")


def test_statuses_are_errors() -> None:
    assert all(400 <= status_of(refusal(code)) <= 599 for code in CODES)

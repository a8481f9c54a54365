"""Refusals on the wire: the one table of statuses, and the error shape of each dialect.

Nothing else in the program knows a status. A code without a line here fails a test, so that none goes out as a guess.
"""

from __future__ import annotations

import math
from http import HTTPStatus

import msgspec
from msgspec import Struct

from shipworthy.model.chat import Dialect
from shipworthy.model.errors import Refusal

STATUSES: dict[str, int] = {
    "server.not_found": 404,
    "server.method_not_allowed": 405,
    "server.draining": 503,
    "server.overloaded": 503,
    "server.internal": 500,
    "server.header_invalid": 400,
    "server.malformed": 400,  # or what HTTP itself has for it: 408, 417, 431, 501, 505
    "server.no_tls": 400,  # never sent
    "identify.missing_credential": 401,
    "identify.conflicting_credentials": 401,
    "identify.malformed": 401,
    "identify.algorithm_refused": 401,
    "identify.unknown_issuer": 401,
    "identify.unknown_key": 401,
    "identify.bad_signature": 401,
    "identify.expired": 401,
    "identify.not_yet_valid": 401,
    "identify.wrong_audience": 401,
    "identify.missing_claim": 401,
    "identify.issuer_unavailable": 503,
    "identify.unknown_tenant": 403,
    "identify.key_unknown": 401,
    "identify.key_revoked": 401,
    "identify.keys_disabled": 401,
    "identify.keys_unavailable": 503,
    "identify.actor_invalid": 403,
    "decode.too_large": 413,
    "decode.no_room": 503,
    "decode.timeout": 408,
    "decode.client_left": 499,  # nobody reads it; logs and metrics do
    "decode.media_type": 415,
    "decode.encoding": 415,
    "decode.not_utf8": 400,
    "decode.not_json": 400,
    "decode.too_deep": 400,
    "decode.duplicate_key": 400,
    "decode.missing_field": 400,
    "decode.wrong_type": 400,
    "decode.too_many": 400,
    "decode.unsupported": 400,
    "authorize.no_role": 403,
    "authorize.unknown_use_case": 404,
    "authorize.wrong_ability": 400,
    "authorize.unknown_data_class": 400,
    "authorize.data_class_lowered": 403,
    "authorize.clearance_too_low": 403,
    "authorize.hosted_tool": 403,
    "authorize.condition_failed": 403,
    "authorize.output_tokens": 400,
    "authorize.input_tokens": 400,
    "authorize.choices": 400,
    "authorize.boundary": 403,
    "authorize.no_model": 400,
    "reserve.budget_exhausted": 429,
    "reserve.requests_limit": 429,
    "reserve.tokens_limit": 429,
    "reserve.concurrent_limit": 429,
    "reserve.paused": 403,  # not 429: no waiting lifts it, and most clients retry every 429, a runaway loop first of all
    "reserve.store_unavailable": 503,
    "route.unavailable": 503,
    "call.failed": 502,
    "call.timeout": 504,
    "call.rejected": 400,
    "call.cut": 502,
    "idempotency.other_body": 422,
    "idempotency.in_flight": 409,
    "record.unavailable": 503,
    "admin.forbidden": 403,
    "admin.other_tenant": 403,
    "admin.operators_only": 403,
    "admin.not_corrected": 409,
    "admin.not_found": 404,
    "admin.invalid": 400,
    "admin.unreadable": 409,
    "admin.store_unavailable": 503,
    "admin.cross_site": 403,
}

WAITING_IS_FUTILE = frozenset({"reserve.budget_exhausted", "reserve.paused"})
"""The official SDKs retry every 429 and 5xx unless told not to; on these it would only be the same refusal again."""

OPENAI_TYPES: dict[str, str] = {
    "reserve.budget_exhausted": "insufficient_quota",
    "reserve.requests_limit": "requests",
    "reserve.tokens_limit": "tokens",
    "reserve.concurrent_limit": "requests",
}
ANTHROPIC_TYPES: dict[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Rendered(Struct, frozen=True):
    """A refusal ready to be sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class OpenAIError(Struct, frozen=True, omit_defaults=True):
    message: str
    type: str
    code: str
    param: str | None
    hint: str = ""


class AnthropicError(Struct, frozen=True):
    type: str
    message: str
    code: str
    hint: str


class AdminError(Struct, frozen=True):
    """What the control plane answers instead of what was asked for."""

    code: str
    message: str
    hint: str
    request_id: str


class AdminRefused(Struct, frozen=True):
    error: AdminError


def render(refusal: Refusal, dialect: Dialect, request_id: str) -> Rendered:
    """The whole answer to a request of ``dialect`` that is refused before its first byte."""
    return Rendered(status_of(refusal), headers_of(refusal), msgspec.json.encode(_body(refusal, dialect, request_id)))


def render_admin(refusal: Refusal, request_id: str) -> Rendered:
    """The whole answer of the control plane."""
    error = AdminError(refusal.code, refusal.message, refusal.hint, request_id)
    return Rendered(status_of(refusal), headers_of(refusal), msgspec.json.encode(AdminRefused(error)))


def error_event(refusal: Refusal, dialect: Dialect, request_id: str) -> tuple[str, bytes]:
    """The event's name ("" = none) and payload with which a stream that has begun ends in ``dialect``."""
    match dialect:
        case Dialect.OPENAI_RESPONSES:
            event = {"type": "error", "code": refusal.code, "message": refusal.message, "param": None}
            return "error", msgspec.json.encode(event)
        case Dialect.ANTHROPIC_MESSAGES:
            return "error", msgspec.json.encode(_body(refusal, dialect, request_id))
        case _:
            return "", msgspec.json.encode(_body(refusal, dialect, request_id))


def status_of(refusal: Refusal) -> int:
    return STATUSES[refusal.code]


def reason_of(status: int) -> str:
    """The status in words, for pages and logs."""
    return "Client Closed Request" if status == STATUSES["decode.client_left"] else HTTPStatus(status).phrase


def headers_of(refusal: Refusal) -> tuple[tuple[str, str], ...]:
    """What the official SDKs and HTTP read of a refusal: when to come again, and whether to."""
    headers: list[tuple[str, str]] = []
    if refusal.retry_after_s is not None:
        headers.append(("retry-after", str(max(1, math.ceil(refusal.retry_after_s)))))
    retryable = refusal.retryable
    if retryable is None and refusal.code in WAITING_IS_FUTILE:
        retryable = False
    if retryable is not None:
        headers.append(("x-should-retry", "true" if retryable else "false"))
    if status_of(refusal) == HTTPStatus.UNAUTHORIZED:
        headers.append(("www-authenticate", "Bearer"))
    if "allowed" in refusal.facts:
        headers.append(("allow", str(refusal.facts["allowed"])))
    return tuple(headers)


def _body(refusal: Refusal, dialect: Dialect, request_id: str) -> dict[str, object]:
    if dialect is Dialect.ANTHROPIC_MESSAGES:
        kind = ANTHROPIC_TYPES.get(status_of(refusal)) or _by_class(refusal, "invalid_request_error", "api_error")
        error = AnthropicError(kind, refusal.message, refusal.code, refusal.hint)
        return {"type": "error", "error": error, "request_id": request_id}
    kind = OPENAI_TYPES.get(refusal.code) or _by_class(refusal, "invalid_request_error", "server_error")
    return {"error": OpenAIError(refusal.message, kind, refusal.code, _param(refusal), refusal.hint)}


def _by_class(refusal: Refusal, asked_wrongly: str, ours: str) -> str:
    return ours if status_of(refusal) >= HTTPStatus.INTERNAL_SERVER_ERROR else asked_wrongly


def _param(refusal: Refusal) -> str | None:
    """Which field of the body is meant, when it is one."""
    if refusal.code == "authorize.unknown_use_case":
        return "model"
    field = refusal.facts.get("field")
    return str(field) if field else None

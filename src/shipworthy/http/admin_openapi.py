"""The OpenAPI document of the admin API, made from the endpoints and the very shapes that they answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from shipworthy import __version__
from shipworthy.http.admin_query import LIMIT, VALUE_CHARS_MAX
from shipworthy.http.errors import AdminRefused, reason_of
from shipworthy.model.exchange import Outcome
from shipworthy.model.money import Period
from shipworthy.model.reading import PAGE_ROWS_MAX, By

REFUSED_WITH = (400, 401, 403, 404, 409, 500, 503)
JSON = "application/json"
SAID: dict[str, tuple[dict[str, object], str]] = {
    "tenant": ({}, "Only this tenant; operators see every one else."),
    "team": ({}, "Only this team."),
    "use_case": ({}, "Only this use case."),
    "model": ({}, "Only what this model answered."),
    "principal": ({}, "Only this subject or actor."),
    "outcome": ({"enum": list(Outcome)}, "Only this outcome."),
    "code": ({}, "Only this refusal code."),
    "since": ({}, "From then on: a date, a time, or a time ago such as 36h, 7d, 4w."),
    "until": ({}, "Before then: a date, a time, or a time ago."),
    "zone": ({"default": "UTC"}, "The IANA time zone of dates and times without offset."),
    "period": ({"enum": list(Period)}, "The running period, instead of since and until."),
    "limit": ({"type": "integer", "minimum": 1, "maximum": PAGE_ROWS_MAX, "default": LIMIT}, "Exchanges a page."),
    "cursor": ({}, "`next` of the page before."),
    "by": ({"enum": list(By), "default": By.USE_CASE}, "What cost is told apart by."),
    "format": ({"enum": ["json", "csv"], "default": "json"}, "CSV is safe to open in a spreadsheet."),
}


class Endpoint(Struct, frozen=True):
    """One method at one path: its handler's name, what it answers, and what it may be asked."""

    method: str
    path: str
    name: str
    summary: str
    answer: type
    query: tuple[str, ...] = ()
    body: type | None = None
    status: int = 200


class KeyWanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The key that is asked for. ``tenant`` may be left out by an administrator of one."""

    role: str
    tenant: str = ""
    name: str = ""
    use_cases: tuple[str, ...] = ("*",)
    expires_days: int | None = None


class CorrectionWanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By how much, in signed dollars as text, and why. Only operators may."""

    usd: str
    because: str
    source: str = ""
    token: str = ""


class PauseWanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to pause: a session and ``of`` whom, or a principal. ``tenant`` may be left out by an administrator of one."""

    kind: str
    name: str
    because: str
    of: str = ""
    tenant: str = ""


class ReleaseWanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a pause is released."""

    because: str


def document(endpoints: Sequence[Endpoint]) -> dict[str, object]:
    """OpenAPI 3.1."""
    types = [AdminRefused, *(e.answer for e in endpoints), *(e.body for e in endpoints if e.body)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, object]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shipworthy control plane", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}],
    }


def _operation(endpoint: Endpoint, schema_of: dict[type, dict[str, object]]) -> dict[str, object]:
    refusal = {JSON: {"schema": schema_of[AdminRefused]}}
    answers: dict[str, object] = {JSON: {"schema": schema_of[endpoint.answer]}}
    if "format" in endpoint.query:
        answers["text/csv"] = {"schema": {"type": "string"}}
    responses: dict[str, object] = {str(endpoint.status): {"description": endpoint.summary, "content": answers}}
    for status in REFUSED_WITH:
        responses[str(status)] = {"description": reason_of(status), "content": refusal}
    operation: dict[str, object] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": [_parameter(name) for name in endpoint.query] + _path_parameters(endpoint.path),
        "responses": responses,
    }
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema_of[endpoint.body]}}}
    return operation


def _parameter(name: str) -> dict[str, object]:
    schema, meaning = SAID[name]
    text = {"type": "string", "maxLength": VALUE_CHARS_MAX}
    return {"name": name, "in": "query", "required": False, "description": meaning, "schema": text | schema}


def _path_parameters(path: str) -> list[dict[str, object]]:
    if "{id}" not in path:
        return []
    return [{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "maxLength": VALUE_CHARS_MAX}}]

"""The control plane over HTTP: ``/admin/v1/*``, and the console where one is handed in. Its own process, its own bind.

Each endpoint authenticates by the same identity stage as the data plane, asks control for what the caller may see and do,
and answers one of the shapes of ``control/shown``. ``/admin/v1/openapi.json`` is made from the same table of routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from shipworthy.control.access import KeyAsked, authority, create_key, list_keys, revoke_key
from shipworthy.control.alert_log import AlertsShown, list_alerts
from shipworthy.control.corrections import Corrected, CorrectionAsked, correct, nano_said
from shipworthy.control.finops import CostReport, as_csv, cost_report
from shipworthy.control.pauses import (
    Named,
    PauseShown,
    PausesShown,
    list_pauses,
    pause_by_hand,
    pause_shown,
    release_pause,
)
from shipworthy.control.reading import read_bodies, read_corrected, read_page
from shipworthy.control.shown import (
    BodiesShown,
    ExchangePage,
    ExchangeShown,
    KeyMade,
    KeyShown,
    KeysShown,
    exchange_page,
    exchange_shown,
    key_shown,
)
from shipworthy.http.admin_openapi import CorrectionWanted, Endpoint, KeyWanted, PauseWanted, ReleaseWanted, document
from shipworthy.http.admin_query import COST, FILTERS, PAGING, Query, exchange_id, pause_id
from shipworthy.http.errors import render_admin
from shipworthy.http.headers import Head
from shipworthy.http.security import SecurityHeaders
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.observation import Failed, Refused
from shipworthy.model.op import Kind, Op
from shipworthy.model.reading import Authority
from shipworthy.ports import ControlPlane

BODY_BYTES_MAX = 16_384
BODY_S_MAX = 10

T = TypeVar("T")
Answered = Callable[[Op, Authority, Request], Awaitable[Response]]


def make_admin(plane: ControlPlane, console: ASGIApp | None = None) -> Starlette:
    """The application of the control plane; ``console`` is mounted at ``/console``."""
    admin = Admin(plane)
    routes: list[BaseRoute] = [_route(admin, endpoint) for endpoint in ENDPOINTS]
    routes.append(Route("/admin/v1/openapi.json", admin.openapi, methods=["GET"]))
    if console is not None:
        routes.append(Route("/", lambda _: RedirectResponse("/console/"), methods=["GET"]))
        routes.append(Mount("/console", console))
    return Starlette(
        routes=routes, middleware=[Middleware(SecurityHeaders)], exception_handlers={HTTPException: not_routed}
    )


class Admin:
    """The endpoints, over the control plane's ports."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.document = msgspec.json.encode(document(ENDPOINTS))

    async def openapi(self, _: Request) -> Response:
        return Response(self.document, media_type="application/json")

    async def exchanges(self, op: Op, holder: Authority, request: Request) -> Response:
        query, plane = Query(request.query_params, (*FILTERS, *PAGING), op.clock), self.plane
        page = await read_page(op, plane.exchanges, plane.acts, holder, query.wanted(), query.place(), query.limit())
        return _json(exchange_page(page))

    async def exchange(self, op: Op, holder: Authority, request: Request) -> Response:
        asked = exchange_id(request.path_params["id"])
        plane = self.plane
        row, made = await read_corrected(op, plane.exchanges, plane.corrections, plane.acts, holder, asked)
        return _json(exchange_shown(row, made))

    async def correct(self, op: Op, holder: Authority, request: Request) -> Response:
        plane, wanted = self.plane, await _body(request, CorrectionWanted)
        asked = CorrectionAsked(
            exchange_id=exchange_id(request.path_params["id"]),
            nano=nano_said(wanted.usd),
            reason=wanted.because,
            source=wanted.source,
            token=wanted.token,
        )
        made = await correct(op, plane.exchanges, plane.corrections, plane.acts, holder, asked)
        return _json(made, 201)

    async def bodies(self, op: Op, holder: Authority, request: Request) -> Response:
        asked = exchange_id(request.path_params["id"])
        return _json(await read_bodies(op, self.plane.exchanges, self.plane.acts, holder, asked))

    async def cost(self, op: Op, holder: Authority, request: Request) -> Response:
        query, plane = Query(request.query_params, COST, op.clock), self.plane
        wanted = query.choice("format", "json", "csv")
        zone, tenant = query.text("zone") or "UTC", query.text("tenant")
        report = await cost_report(op, plane.exchanges, plane.acts, holder, query.by(), query.span(), zone, tenant)
        if wanted == "csv":
            named = {"content-disposition": "attachment; filename=cost.csv"}
            return Response(as_csv(report), media_type="text/csv; charset=utf-8", headers=named)
        return _json(report)

    async def alerts(self, op: Op, holder: Authority, request: Request) -> Response:
        tenant = Query(request.query_params, ("tenant",), op.clock).text("tenant")
        return _json(await list_alerts(op, self.plane.alerts, self.plane.acts, holder, tenant))

    async def keys(self, op: Op, holder: Authority, request: Request) -> Response:
        tenant = Query(request.query_params, ("tenant",), op.clock).text("tenant")
        found = await list_keys(op, self.plane.keys, self.plane.acts, self.plane.snapshot(), holder, tenant)
        now_ns = op.clock.unix_ns()
        return _json(KeysShown(keys=tuple(key_shown(key, now_ns) for key in found)))

    async def create_key(self, op: Op, holder: Authority, request: Request) -> Response:
        wanted = await _body(request, KeyWanted)
        tenant = wanted.tenant or ("" if holder.everywhere else holder.scope)
        asked = KeyAsked(
            tenant=tenant,
            role=wanted.role,
            name=wanted.name,
            use_cases=wanted.use_cases,
            expires_days=wanted.expires_days,
        )
        plane = self.plane
        key, secret = await create_key(op, plane.keys, plane.snapshot(), plane.pepper, holder, asked)
        return _json(KeyMade(key=key_shown(key, op.clock.unix_ns()), secret=secret), 201)

    async def revoke_key(self, op: Op, holder: Authority, request: Request) -> Response:
        key = await revoke_key(op, self.plane.keys, holder, request.path_params["id"])
        return _json(key_shown(key, op.clock.unix_ns()))

    async def pauses(self, op: Op, holder: Authority, request: Request) -> Response:
        tenant = Query(request.query_params, ("tenant",), op.clock).text("tenant")
        found = await list_pauses(op, self.plane.pauses, self.plane.acts, holder, tenant)
        return _json(PausesShown(pauses=tuple(map(pause_shown, found))))

    async def pause(self, op: Op, holder: Authority, request: Request) -> Response:
        said, plane = await _body(request, PauseWanted), self.plane
        named = Named(kind=said.kind, name=said.name, tenant=said.tenant, of=said.of)
        made = await pause_by_hand(op, plane.pauses, plane.snapshot(), holder, named, said.because)
        return _json(pause_shown(made), 201)

    async def release(self, op: Op, holder: Authority, request: Request) -> Response:
        asked, said = pause_id(request.path_params["id"]), await _body(request, ReleaseWanted)
        return _json(pause_shown(await release_pause(op, self.plane.pauses, holder, asked, said.because)))

    def guarded(self, endpoint: Answered) -> Callable[[Request], Awaitable[Response]]:
        """``endpoint`` behind identity, with every refusal in the admin shape."""

        async def answer(request: Request) -> Response:
            op = Op(Kind.REQUEST, self.plane.clock, self.plane.observe)
            try:
                return await endpoint(op, await self._holder(op, request), request)
            except Refusal as refusal:
                return refused(refusal, op)
            except StoreUnavailable as away:
                return refused(Refusal("admin.store_unavailable", detail=str(away), retry_after_s=5), op)
            except ClientDisconnect:
                return refused(Refusal("decode.client_left"), op)
            except Exception as unforeseen:  # noqa: BLE001 - the last line: it is said in full to the log, in brief outside
                op.observe(Failed.of("admin", unforeseen, op.id_text))
                return refused(Refusal("server.internal"), op)

        return answer

    async def _holder(self, op: Op, request: Request) -> Authority:
        try:
            credentials = Head(request.scope["headers"]).credentials()
            return authority(self.plane.snapshot(), await self.plane.identify(op, credentials))
        except Refusal as refusal:
            peer = request.client.host if request.client else ""
            op.observe(Refused(op.id_text, refusal.code, refusal.detail, peer))
            raise


ENDPOINTS: Sequence[Endpoint] = (
    Endpoint("GET", "/admin/v1/exchanges", "exchanges", "Exchanges, newest first.", ExchangePage, (*FILTERS, *PAGING)),
    Endpoint("GET", "/admin/v1/exchanges/{id}", "exchange", "One exchange and why it went so.", ExchangeShown),
    Endpoint(
        "GET", "/admin/v1/exchanges/{id}/bodies", "bodies", "What was said in it. The read is recorded.", BodiesShown
    ),
    Endpoint(
        "POST",
        "/admin/v1/exchanges/{id}/corrections",
        "correct",
        "Corrects what it cost; said twice it is one.",
        Corrected,
        (),
        CorrectionWanted,
        201,
    ),
    Endpoint("GET", "/admin/v1/cost", "cost", "What was spent, told apart by a dimension.", CostReport, COST),
    Endpoint("GET", "/admin/v1/alerts", "alerts", "Budget alerts that fired, newest first.", AlertsShown, ("tenant",)),
    Endpoint("GET", "/admin/v1/keys", "keys", "Service keys, newest first.", KeysShown, ("tenant",)),
    Endpoint("POST", "/admin/v1/keys", "create_key", "A new service key, shown once.", KeyMade, (), KeyWanted, 201),
    Endpoint("DELETE", "/admin/v1/keys/{id}", "revoke_key", "Takes a service key back.", KeyShown),
    Endpoint("GET", "/admin/v1/pauses", "pauses", "Who is paused, newest first.", PausesShown, ("tenant",)),
    Endpoint("POST", "/admin/v1/pauses", "pause", "Pauses by hand.", PauseShown, (), PauseWanted, 201),
    Endpoint("POST", "/admin/v1/pauses/{id}/release", "release", "Ends a pause.", PauseShown, (), ReleaseWanted),
)


def _route(admin: Admin, endpoint: Endpoint) -> Route:
    answer: Answered = getattr(admin, endpoint.name)
    return Route(endpoint.path, admin.guarded(answer), methods=[endpoint.method])


async def _body(request: Request, shape: type[T]) -> T:
    """The body of a POST: JSON, bounded in size and time."""
    Head(request.scope["headers"]).check_json()
    said = bytearray()
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for piece in request.stream():
                said += piece
                if len(said) > BODY_BYTES_MAX:
                    raise Refusal("decode.too_large", limit_bytes=BODY_BYTES_MAX)
        return msgspec.json.decode(said, type=shape)
    except TimeoutError as slow:
        raise Refusal("decode.timeout", limit_s=BODY_S_MAX) from slow
    except (msgspec.MsgspecError, UnicodeDecodeError) as wrong:
        raise Refusal("admin.invalid", name="the body", reason=str(wrong)) from wrong


async def not_routed(request: Request, error: Exception) -> Response:
    """There is no such page, or not by this method."""
    op_id = ""
    if isinstance(error, HTTPException) and error.status_code == 405:
        refusal = Refusal("server.method_not_allowed", method=request.method, path=request.url.path)
    else:
        refusal = Refusal("admin.not_found", what="page", id=request.url.path[:200])
    rendered = render_admin(refusal, op_id)
    headers = dict(rendered.headers) | dict(getattr(error, "headers", None) or {})
    return Response(rendered.body, rendered.status, headers, "application/json")


def refused(refusal: Refusal, op: Op) -> Response:
    rendered = render_admin(refusal, op.id_text)
    return Response(rendered.body, rendered.status, dict(rendered.headers), "application/json")


def _json(shown: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(shown), status, media_type="application/json")

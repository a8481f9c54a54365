"""The console: pages that only read, over the same ports and with the same authority as the admin API.

Server-rendered; a few lines of script of our own keep the list fresh. No page holds a token, an inline script or a style
attribute, so that the content security policy can forbid all three.
"""

from __future__ import annotations

import hashlib
from uuid import UUID

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from shipworthy.console.door import Door, same_site
from shipworthy.console.filters import link, place_of, wanted_of
from shipworthy.console.rendering import Pages
from shipworthy.console.waterfall import waterfall
from shipworthy.control.audit import explain
from shipworthy.control.reading import Watches, read_bodies, read_corrected, read_page, watch_page
from shipworthy.control.shown import exchange_line
from shipworthy.model.errors import Refusal
from shipworthy.model.op import Op
from shipworthy.model.reading import Authority
from shipworthy.ports import ControlPlane

ROWS = 50


def make_console(plane: ControlPlane) -> Starlette:
    """The application that is mounted at ``/console``."""
    pages = Pages()
    console, door = Console(plane, pages), Door(plane, pages)
    routes = [
        Route("/", door.guarded(console.exchanges), methods=["GET"]),
        Route("/live", door.guarded(console.live, renews=False), methods=["GET"]),
        Route("/exchanges/{id}", door.guarded(console.exchange), methods=["GET"]),
        Route("/exchanges/{id}/said", door.guarded(console.said), methods=["POST"]),
        Route("/login", door.login_page, methods=["GET"]),
        Route("/login", door.login, methods=["POST"]),
        Route("/logout", door.logout, methods=["POST"]),
        Mount("/static", StaticFiles(packages=[("shipworthy.console", "static")])),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: door.not_routed})


class Console:
    """The pages behind the door."""

    def __init__(self, plane: ControlPlane, pages: Pages) -> None:
        self._plane = plane
        self._pages = pages
        self._watches = Watches()

    async def exchanges(self, op: Op, holder: Authority, request: Request) -> Response:
        """The list; its first page refreshes itself."""
        wanted, after = wanted_of(request.query_params), place_of(request.query_params)
        page = await read_page(op, self._plane.exchanges, self._plane.acts, holder, wanted, after, ROWS)
        return self._page(
            "exchanges.html",
            holder,
            rows=tuple(map(exchange_line, page.rows)),
            wanted=wanted,
            older=link("/console/", wanted, cursor=page.after.cursor()) if page.after else "",
            newest=link("/console/", wanted) if after else "",
            live="" if after else link("/console/live", wanted),
            tenants=sorted(self._plane.snapshot().tenants) if holder.everywhere else [],
        )

    async def live(self, op: Op, holder: Authority, request: Request) -> Response:
        """The rows of the first page, for the script; 304 while they are the ones that it has."""
        wanted = wanted_of(request.query_params)
        page = await watch_page(op, self._plane.exchanges, self._plane.acts, holder, wanted, self._watches, ROWS)
        text = self._pages.render("_rows.html", rows=tuple(map(exchange_line, page.rows)), holder=holder)
        etag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"etag": etag})
        return Response(text, media_type="text/html", headers={"etag": etag})

    async def exchange(self, op: Op, holder: Authority, request: Request) -> Response:
        """One exchange: its figures, its waterfall, and the decision in plain words."""
        plane = self._plane
        row, made = await read_corrected(op, plane.exchanges, plane.corrections, plane.acts, holder, _id(request))
        return self._page(
            "exchange.html", holder, row=row, line=exchange_line(row), sections=explain(row, made), fall=waterfall(row)
        )

    async def said(self, op: Op, holder: Authority, request: Request) -> Response:
        """What was said. A POST, so that nothing fetches it ahead; the read is on record before it is shown."""
        same_site(request)
        bodies = await read_bodies(op, self._plane.exchanges, self._plane.acts, holder, _id(request))
        return self._page("said.html", holder, bodies=bodies)

    def _page(self, template: str, holder: Authority, **named: object) -> Response:
        snapshot = self._plane.snapshot()
        place = f"{snapshot.name} · {snapshot.environment}"
        return Response(self._pages.render(template, holder=holder, place=place, **named), media_type="text/html")


def _id(request: Request) -> UUID:
    said: str = request.path_params["id"]
    try:
        return UUID(said)
    except ValueError as wrong:
        raise Refusal("admin.not_found", what="exchange", id=said[:64]) from wrong

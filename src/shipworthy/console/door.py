"""Who comes in to the console: the login, the session of each request, and what is shown to whoever may not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from shipworthy.console.rendering import Pages
from shipworthy.console.session import COOKIE, SESSION_S, TOKEN_CHARS_MAX, seal, unseal
from shipworthy.control.access import authority
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.identity import Credentials
from shipworthy.model.observation import Failed, Refused
from shipworthy.model.op import Kind, Op
from shipworthy.model.reading import Authority
from shipworthy.ports import ControlPlane

FORM_BYTES_MAX = 16_384
FORM_S_MAX = 10
NS_PER_S = 1_000_000_000
STATUSES = {
    "identify.issuer_unavailable": 503,
    "identify.keys_unavailable": 503,
    "admin.invalid": 400,
    "admin.forbidden": 403,
    "admin.other_tenant": 403,
    "admin.cross_site": 403,
    "admin.not_found": 404,
    "admin.unreadable": 409,
    "admin.store_unavailable": 503,
    "decode.too_large": 413,
    "decode.timeout": 408,
}

Page = Callable[[Op, Authority, Request], Awaitable[Response]]
Handler = Callable[[Request], Awaitable[Response]]


class Door:
    """The session lies in a sealed cookie; its token is identified anew for each request."""

    def __init__(self, plane: ControlPlane, pages: Pages) -> None:
        self._plane = plane
        self._pages = pages

    def guarded(self, page: Page, *, renews: bool = True) -> Handler:
        """``page`` behind the session. ``renews``: looking at it keeps the session going; a refresh by script doesn't."""

        async def answer(request: Request) -> Response:
            op = self._op()
            token = unseal(self._plane.cookie_key, request.cookies.get(COOKIE, ""), _now_s(op))
            try:
                response = await page(op, await self._holder(op, token), request)
            except Refusal as refusal:
                if status_of(refusal) == 401:
                    return RedirectResponse("/console/login", 303) if renews else Response(status_code=401)
                return self._told(refusal, op)
            except StoreUnavailable as away:
                return self._told(Refusal("admin.store_unavailable", detail=str(away)), op)
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as unforeseen:  # noqa: BLE001 - the last line: said in full to the log, in brief outside
                op.observe(Failed.of("console", unforeseen, op.id_text))
                return self._told(Refusal("server.internal"), op)
            if renews:
                self._remember(response, token, op, request)
            return response

        return answer

    async def login_page(self, _: Request) -> Response:
        return Response(self._pages.render("login.html", refusal=None), media_type="text/html")

    async def login(self, request: Request) -> Response:
        """Whoever shows a token with authority gets a session; the token is in no page and no URL."""
        op = self._op()
        try:
            same_site(request)
            token = await _pasted(request)
            await self._holder(op, token)
        except (Refusal, StoreUnavailable) as reason:
            refusal = reason if isinstance(reason, Refusal) else Refusal("admin.store_unavailable", detail=str(reason))
            text = self._pages.render("login.html", refusal=refusal)
            return Response(text, status_of(refusal), media_type="text/html")
        response = RedirectResponse("/console/", 303)
        self._remember(response, token, op, request)
        return response

    async def logout(self, request: Request) -> Response:
        try:
            same_site(request)
        except Refusal as refusal:
            return self._told(refusal, self._op())
        response = RedirectResponse("/console/login", 303)
        response.delete_cookie(COOKIE, path="/console", httponly=True, samesite="strict")
        return response

    async def not_routed(self, request: Request, error: Exception) -> Response:
        path = request.url.path[:200]
        refusal = Refusal("admin.not_found", what="page", id=path)
        status = error.status_code if isinstance(error, HTTPException) else 404
        return Response(self._pages.render("refused.html", refusal=refusal, id=""), status, media_type="text/html")

    async def _holder(self, op: Op, token: str) -> Authority:
        try:
            if not token:
                raise Refusal("identify.missing_credential")
            principal = await self._plane.identify(op, Credentials(bearer=token))
            return authority(self._plane.snapshot(), principal)
        except Refusal as refusal:
            if token:
                op.observe(Refused(op.id_text, refusal.code, refusal.detail, "console"))
            raise

    def _remember(self, response: Response, token: str, op: Op, request: Request) -> None:
        response.set_cookie(
            COOKIE,
            seal(self._plane.cookie_key, token, _now_s(op)),
            max_age=SESSION_S,
            path="/console",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def _told(self, refusal: Refusal, op: Op) -> Response:
        text = self._pages.render("refused.html", refusal=refusal, id=op.id_text)
        return Response(text, status_of(refusal), media_type="text/html")

    def _op(self) -> Op:
        return Op(Kind.REQUEST, self._plane.clock, self._plane.observe)


def same_site(request: Request) -> None:
    """Refuses a form that another site sent. Browsers say where a form comes from; whoever is none needs no cookie."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin", "")
    ours = f"{request.url.scheme}://{request.headers.get('host', '')}"
    if site not in ("same-origin", "none") or origin not in ("", ours):
        raise Refusal("admin.cross_site", detail=f"sec-fetch-site {site}, origin {origin[:200]}")


def status_of(refusal: Refusal) -> int:
    """The console's few statuses; what identity refuses is 401."""
    return STATUSES.get(refusal.code, 401 if refusal.code.startswith("identify.") else 500)


async def _pasted(request: Request) -> str:
    """The token of the login form, bounded. Raises Refusal."""
    said = bytearray()
    try:
        async with asyncio.timeout(FORM_S_MAX):
            async for piece in request.stream():
                said += piece
                if len(said) > FORM_BYTES_MAX:
                    raise Refusal("decode.too_large", limit_bytes=FORM_BYTES_MAX)
    except TimeoutError:
        raise Refusal("decode.timeout", limit_s=FORM_S_MAX) from None
    fields = parse_qs(said.decode("latin-1"), max_num_fields=4)
    token = fields.get("token", [""])[0].strip()
    token = token[7:].strip() if token[:7].lower() == "bearer " else token
    if len(token) > TOKEN_CHARS_MAX:
        reason = f"it has {len(token)} letters, a cookie holds {TOKEN_CHARS_MAX}; use a service key or a shorter token"
        raise Refusal("admin.invalid", name="the token", reason=reason)
    return token


def _now_s(op: Op) -> int:
    return op.clock.unix_ns() // NS_PER_S

"""A real OpenID Connect issuer on this machine: discovery and JWKS over HTTP, keys that come and go, and every way to fail.

    with LocalIssuer() as issuer:
        issuer.add_key("RS256")
        token = issuer.token(tenant="northwind", subject="ada", groups=["agents"])

It runs in a thread of its own, so that tests of any kind can use it, and listens on a port that the kernel gives.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import TracebackType

from aiohttp import web

from shipworthy.kit.signing import Algorithm, SigningKey
from shipworthy.model.op import Clock, SystemClock

START_S_MAX = 10.0
OVERSIZED_BYTES = 1_048_576
DISCOVERY_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/keys"


class Fault(StrEnum):
    """What the issuer does instead of answering."""

    NONE = "none"
    OUTAGE = "outage"  # 503
    DOWN = "down"  # the connection is dropped
    SLOW = "slow"  # answers after ``slow_s``
    GARBAGE = "garbage"  # 200 with a page
    HALF = "half"  # the answer ends in the middle
    OVERSIZED = "oversized"
    COMPRESSED = "compressed"
    REDIRECT_HERE = "redirect_here"  # to the same host, where the answer is
    REDIRECT_AWAY = "redirect_away"  # to another host
    REDIRECT_LOOP = "redirect_loop"


class LocalIssuer:
    """One issuer. ``fault`` may be changed at any time; ``asked`` counts the requests for keys."""

    def __init__(
        self, audience: str = "shipworthy", clock: Clock | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.audience = audience
        self.clock = clock or SystemClock()
        self.keys: dict[str, SigningKey] = {}
        self.fault = Fault.NONE
        self.slow_s = 30.0
        self.asked = 0
        self.speaks_for = ""  # what discovery says that the issuer is; "" = the truth
        self.jwks_named = ""  # where discovery says that the keys are; "" = the truth
        self.issuer = ""
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="local-issuer", daemon=True)

    @property
    def jwks_uri(self) -> str:
        return self.issuer + JWKS_PATH

    def add_key(self, algorithm: Algorithm = "EdDSA", kid: str | None = None) -> SigningKey:
        """Publishes a new key at once. The newest one signs."""
        key = SigningKey(algorithm, kid or f"key-{len(self.keys) + 1}-{algorithm}")
        assert key.kid is not None
        self.keys = self.keys | {key.kid: key}
        return key

    def remove_key(self, kid: str) -> None:
        """Withdraws a key: what it signed is no longer to be trusted."""
        self.keys = {name: key for name, key in self.keys.items() if name != kid}

    def token(
        self,
        *,
        tenant: str = "northwind",
        subject: str = "ada",
        groups: Sequence[str] = (),
        ttl_s: int = 3600,
        key: SigningKey | None = None,
        more: Mapping[str, object] | None = None,
    ) -> str:
        """A valid token by ``key``, else by the newest one. ``more`` overrides claims; one that is None is left out."""
        now_s = self.clock.unix_ns() // 1_000_000_000
        claims: dict[str, object] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "tenant": tenant,
            "groups": list(groups),
            "iat": now_s,
            "exp": now_s + ttl_s,
        }
        claims |= more or {}
        signer = key or list(self.keys.values())[-1]
        return signer.sign({name: value for name, value in claims.items() if value is not None})

    def __enter__(self) -> LocalIssuer:
        self._thread.start()
        if not self._ready.wait(START_S_MAX):
            raise TimeoutError("the local issuer did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(START_S_MAX)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get(DISCOVERY_PATH, self._discovery)
        app.router.add_get(JWKS_PATH, self._jwks)
        app.router.add_get("/moved" + JWKS_PATH, self._moved)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.issuer = f"{'https' if self._tls else 'http'}://{host}:{port}"
        self._ready.set()
        await self._ended.wait()
        await runner.cleanup()

    async def _discovery(self, request: web.Request) -> web.StreamResponse:
        said = {"issuer": self.speaks_for or self.issuer, "jwks_uri": self.jwks_named or self.jwks_uri}
        return web.json_response(said)

    async def _jwks(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        match self.fault:
            case Fault.OUTAGE:
                return web.Response(status=503)
            case Fault.DOWN:
                return self._dropped(request)
            case Fault.SLOW:
                await asyncio.sleep(self.slow_s)
            case Fault.GARBAGE:
                return web.Response(text="<html>Sign in</html>", content_type="text/html")
            case Fault.HALF:
                return await self._half(request)
            case Fault.OVERSIZED:
                return web.json_response({"keys": [], "padding": " " * OVERSIZED_BYTES})
            case Fault.COMPRESSED:
                return web.Response(body=b"\x1f\x8b", headers={"content-encoding": "gzip"})
            case Fault.REDIRECT_HERE:
                return web.Response(status=302, headers={"location": "/moved" + JWKS_PATH})
            case Fault.REDIRECT_AWAY:
                return web.Response(status=302, headers={"location": f"http://localhost:{request.url.port}/moved/keys"})
            case Fault.REDIRECT_LOOP:
                return web.Response(status=302, headers={"location": JWKS_PATH})
        return await self._moved(request)

    async def _moved(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"keys": [key.published() for key in self.keys.values()]})

    async def _half(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "4096"})
        await response.prepare(request)
        await response.write(b'{"keys": [')
        return self._dropped(request)

    def _dropped(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

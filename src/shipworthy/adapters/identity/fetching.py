"""Fetches an issuer's documents over HTTP: bounded in bytes and time, TLS verified, never led to another host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import aiohttp
from yarl import URL

from shipworthy.adapters.identity.keys import KeySet, KeysInvalid, read_keys
from shipworthy.adapters.identity.reading import quoted, read_object
from shipworthy.adapters.identity.settings import IssuerSettings, insecure, loopback
from shipworthy.model.errors import Refusal

DOCUMENT_BYTES_MAX = 262_144
REDIRECTS_MAX = 3
CONNECTIONS_MAX = 16
REDIRECTS = (301, 302, 303, 307, 308)
DISCOVERY_PATH = "/.well-known/openid-configuration"

Get = Callable[[str], Awaitable[bytes]]


class FetchFailed(Exception):
    """The document did not come, or is not one that may be used."""


class Fetcher:
    """One HTTP session for all issuers. No cookies, no proxy from the environment, no decompression."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str) -> bytes:
        """The document at ``url``. Redirects are followed within the same scheme, host and port. Raises FetchFailed."""
        at = URL(url)
        for _ in range(REDIRECTS_MAX + 1):
            try:
                document, onward = await self._step(at)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as reason:
                raise FetchFailed(f"{at}: {type(reason).__name__} {str(reason)[:200]}".rstrip()) from reason
            if onward is None:
                return document
            if onward.origin() != at.origin():
                raise FetchFailed(f"{at} redirects to another host, {onward.origin()}")
            at = onward
        raise FetchFailed(f"{url}: more than {REDIRECTS_MAX} redirects")

    async def _step(self, at: URL) -> tuple[bytes, URL | None]:
        async with self._open().get(at, allow_redirects=False) as response:
            if response.status in REDIRECTS:
                return b"", at.join(URL(response.headers.get("location", "")))
            if response.status != 200:
                raise FetchFailed(f"{at} answered {response.status}")
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise FetchFailed(f"{at} answered compressed, though identity was asked")
            return await read_bounded(response), None

    def _open(self) -> aiohttp.ClientSession:
        """Made at first use: a session belongs to the loop that it is made in."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "shipworthy"},
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def read_bounded(response: aiohttp.ClientResponse) -> bytes:
    document = bytearray()
    async for piece in response.content.iter_any():
        document += piece
        if len(document) > DOCUMENT_BYTES_MAX:
            raise FetchFailed(f"{response.url} is larger than {DOCUMENT_BYTES_MAX} bytes")
    return bytes(document)


async def fetch_keys(get: Get, settings: IssuerSettings) -> KeySet:
    """The keys that the issuer publishes now, by its JWKS address or by discovery. Raises FetchFailed."""
    uri = settings.jwks_uri or await discover(get, settings.issuer)
    if why := insecure(uri):
        raise FetchFailed(f"jwks_uri {quoted(uri)}: {why}")
    document = await get(uri)
    try:
        return read_keys(document)
    except KeysInvalid as invalid:
        raise FetchFailed(f"{uri}: {invalid}") from invalid


async def discover(get: Get, issuer: str) -> str:
    """The JWKS address in the issuer's discovery document (OpenID Connect Discovery §4), which must name the issuer."""
    url = issuer.rstrip("/") + DISCOVERY_PATH
    if why := insecure(url):
        raise FetchFailed(f"discovery at {quoted(url)}: {why}")
    try:
        document = read_object(await get(url), "discovery document")
    except Refusal as refusal:
        raise FetchFailed(f"{url}: {refusal.detail}") from refusal
    if document.get("issuer") != issuer:
        raise FetchFailed(f"{url} speaks for {quoted(document.get('issuer'))}, not for {issuer}")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str):
        raise FetchFailed(f"{url} names no jwks_uri")
    if loopback(uri) and not loopback(url):
        raise FetchFailed(f"{url} leads to this machine, {quoted(uri)}")
    return uri

"""An issuer's documents over HTTP: bounded in bytes and time, TLS verified, never led to another host.

Loaded only where a manifest names an issuer whose keys are fetched: the library takes 120 ms.
"""

from __future__ import annotations

import aiohttp
from yarl import URL

from shipworthy.adapters.identity.fetching import FetchFailed

DOCUMENT_BYTES_MAX = 262_144
REDIRECTS_MAX = 3
CONNECTIONS_MAX = 16
REDIRECTS = (301, 302, 303, 307, 308)


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

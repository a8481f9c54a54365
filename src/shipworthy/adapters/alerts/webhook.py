"""Alerts posted to a webhook: one signed POST, bounded in every direction; no redirect, no cookie, no proxy.

Address and secret come from the manifest by reference and are in no text that leaves this file: an address that may post is
a secret too. What the receiver says is read, so that its connection ends in order, and forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC
from email.utils import parsedate_to_datetime
from uuid import UUID

import aiohttp
from yarl import URL

from shipworthy import __version__
from shipworthy.model.alert import Posted
from shipworthy.model.op import Clock
from shipworthy.model.signature import DELIVERY_HEADER, SIGNATURE_HEADER, signed

TOTAL_S = 10.0
"""A POST from first to last byte; the store's claim lasts longer."""
CONNECT_S = 5.0
ANSWER_S = 2.0
"""Of it, what is granted to an answer's body, which changes nothing."""
ANSWER_BYTES_MAX = 65_536
HEADER_LINE_BYTES_MAX = 8_190
HEADERS_MAX = 100
RETRY_AFTER_S_MAX = 3_600.0

FOREIGN: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ConnectionTimeoutError, "no connection in time"),
    (aiohttp.ClientConnectorDNSError, "the host name does not resolve"),
    (aiohttp.ClientConnectorCertificateError, "the certificate is not trusted"),
    (aiohttp.ClientConnectorSSLError, "no TLS could be agreed on"),
    (aiohttp.ClientConnectorError, "no connection"),
    (TimeoutError, "no answer in time"),
    (aiohttp.ServerDisconnectedError, "the connection was closed before an answer"),
    (aiohttp.ClientResponseError, "the answer's head is not HTTP, or too large"),
    (aiohttp.ClientOSError, "the connection was reset"),
    (aiohttp.InvalidURL, "the address is no URL that can be posted to"),
    (aiohttp.ClientError, "the connection failed"),
    (OSError, "the connection failed"),
)


class WebhookPoster:
    """ports.AlertPoster. Alerts are rare: each POST has a connection of its own, and none is kept."""

    def __init__(self, url: str, secret: str, clock: Clock, *, total_s: float = TOTAL_S) -> None:
        self._url = url
        self._secret = secret.encode()
        self._clock = clock
        self._total_s = total_s

    def __repr__(self) -> str:  # both are secrets
        return "WebhookPoster()"

    async def post(self, delivery_id: UUID, body: bytes) -> Posted:
        try:
            async with asyncio.timeout(self._total_s), _session() as session:
                return await self._posted(session, delivery_id, body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as reason:
            return Posted(0, _words(reason))

    async def _posted(self, session: aiohttp.ClientSession, delivery_id: UUID, body: bytes) -> Posted:
        now_s = self._clock.unix_ns() // 1_000_000_000
        headers = {DELIVERY_HEADER: str(delivery_id), SIGNATURE_HEADER: signed(self._secret, body, now_s)}
        async with session.post(URL(self._url), data=body, headers=headers, allow_redirects=False) as response:
            status = response.status
            retry_after_s = _retry_after_s(response.headers.get("retry-after", ""), now_s)
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):  # the status has decided
                async with asyncio.timeout(min(ANSWER_S, self._total_s / 2)):
                    await _drain(response)
        reason = "a redirect, which is not followed" if 300 <= status < 400 else ""
        return Posted(status, reason, retry_after_s)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=1, force_close=True),
        timeout=aiohttp.ClientTimeout(connect=CONNECT_S, sock_connect=CONNECT_S, ceil_threshold=86_400),
        headers={
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"shipworthy/{__version__}",
        },
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=ANSWER_BYTES_MAX // 2,  # aiohttp stops reading from the socket at twice this
        max_line_size=HEADER_LINE_BYTES_MAX,
        max_field_size=HEADER_LINE_BYTES_MAX,
        max_headers=HEADERS_MAX,
    )


async def _drain(response: aiohttp.ClientResponse) -> None:
    left = ANSWER_BYTES_MAX
    while left > 0 and (piece := await response.content.readany()):
        left -= len(piece)


def _retry_after_s(said: str, now_unix_s: int) -> float:
    """Seconds, or an HTTP date, as RFC 9110 §10.2.3 allows; 0 for nothing and for nonsense."""
    if said.isascii() and said.isdigit():
        return min(float(said[:10]), RETRY_AFTER_S_MAX)
    try:
        at = parsedate_to_datetime(said)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, at.timestamp() - now_unix_s), RETRY_AFTER_S_MAX)


def _words(reason: BaseException) -> str:
    """Why, without what the exception quotes: that may be the address."""
    return next((words for foreign, words in FOREIGN if isinstance(reason, foreign)), type(reason).__name__)

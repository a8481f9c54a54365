"""How a connection to a provider comes about: its addresses, a proxy on the way, TLS. All of it within ``connect_s``.

Through a proxy an encrypted provider is reached in a tunnel (CONNECT), so that the proxy sees neither key nor body; one that
is not encrypted is asked for by its whole address, with the proxy's credentials in every request.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from shipworthy.adapters.providers.places import Addresses, Place, place
from shipworthy.adapters.providers.race import first_of
from shipworthy.adapters.providers.tunnel import Tunnel
from shipworthy.adapters.providers.wire import Wire
from shipworthy.model.errors import FailureKind, ProviderFailure, StartRefused

if TYPE_CHECKING:  # what looks at certificates takes its time to import, and is not always wanted
    from shipworthy.manifest.certificates import Certificate

FOREIGN: tuple[tuple[type[OSError], str], ...] = (
    (TimeoutError, "no connection in time"),
    (socket.gaierror, "the host name does not resolve"),
    (ssl.SSLCertVerificationError, "the certificate is not trusted"),
    (ssl.SSLError, "no TLS could be agreed on"),
    (OSError, "no connection"),
)


class Proxy(Struct, frozen=True):
    """An HTTP proxy, and the header value that it wants, if any."""

    place: Place
    authorization: str

    def __repr__(self) -> str:
        return f"Proxy({self.place.authority})"


def proxy_at(url: str) -> Proxy | None:
    """The proxy that a manifest names; None for "". Raises StartRefused."""
    if not url:
        return None
    parts, at = urlsplit(url), place(url, "provider.proxy")
    if parts.username is None:
        return Proxy(at, "")
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(at, "Basic " + b64encode(pair.encode()).decode("ascii"))


Dialled = TypeVar("Dialled", Wire, Tunnel)


class Dialler:
    """Makes connections to one provider."""

    def __init__(
        self, to: Place, proxy: Proxy | None, tls: ssl.SSLContext | None, connect_s: float, ca_file: Path | None = None
    ) -> None:
        self._to = to
        self._proxy = proxy
        self._tls = tls
        meets_proxy = proxy is not None and proxy.place.tls
        self._hop_tls = tls_context(ca_file) if meets_proxy else tls  # a proxy is shown no certificate of ours
        self._connect_s = connect_s
        next_hop = proxy.place if proxy else to
        self._addresses = Addresses(next_hop.host, next_hop.port)

    async def dial(self, made: Callable[[], Wire]) -> Wire:
        """A connection over which the next bytes are a request. Raises ProviderFailure CONNECT; a cancel leaves nothing."""
        try:
            async with asyncio.timeout(self._connect_s):
                if self._proxy is not None and self._to.tls:
                    return await self._tunnelled(self._proxy, made)
                return await self._reached(made)
        except OSError as reason:
            raise translated(reason) from reason

    async def _reached(self, made: Callable[[], Dialled]) -> Dialled:
        """The next hop, over the first of its addresses that answers."""
        hop = self._proxy.place if self._proxy else self._to
        loop = asyncio.get_running_loop()
        tls, name = (self._hop_tls, hop.host) if hop.tls else (None, None)

        async def attempt(address: str) -> Dialled:
            _, protocol = await loop.create_connection(made, address, hop.port, ssl=tls, server_hostname=name)
            return protocol

        try:
            return await first_of(await self._addresses.all(), attempt)
        except OSError as reason:
            self._addresses.forget()
            if self._proxy is None:
                raise
            why = f" ({reason.strerror})" if reason.strerror else ""
            raise unsent(f"the proxy cannot be reached{why}") from reason

    async def _tunnelled(self, proxy: Proxy, made: Callable[[], Wire]) -> Wire:
        loop = asyncio.get_running_loop()
        tunnel = await self._reached(lambda: Tunnel(loop))
        try:
            transport = await tunnel.through(self._to.authority, proxy.authorization)
            wire = made()
            assert self._tls is not None
            inner = await loop.start_tls(transport, wire, self._tls, server_hostname=self._to.host)
        except BaseException:  # cancelled, refused, or not trusted: the proxy's connection ends as well
            tunnel.abort()
            raise
        if inner is None:  # typeshed: where the transport was lost meanwhile
            raise ConnectionResetError("the proxy closed the tunnel")
        wire.connection_made(inner)
        return wire


def translated(reason: OSError) -> ProviderFailure:
    """The failure that an exception of the loop, the resolver or TLS is, most specific first."""
    words = next(words for foreign, words in FOREIGN if isinstance(reason, foreign))
    why = reason.verify_message if isinstance(reason, ssl.SSLCertVerificationError) else reason.strerror
    return unsent(f"{words} ({why})" if why else words)


def unsent(words: str) -> ProviderFailure:
    """No byte of a request has left: another provider, or another try, costs nothing."""
    return ProviderFailure(FailureKind.CONNECT, words, sent=False)


@lru_cache(maxsize=16)
def tls_context(ca_file: Path | None, certificate: Certificate | None = None) -> ssl.SSLContext:
    """Certificates and host names are verified; ``ca_file`` replaces the machine's authorities, ``certificate`` is ours to
    show. Raises StartRefused."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as reason:  # ssl.SSLError among them
        why = reason.strerror or "it holds no certificate in PEM"
        raise StartRefused(
            "provider.ca_file",
            f"{ca_file} cannot be used: {why}",
            "name a file of PEM certificates that the server may read",
        ) from reason
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        _show(certificate, context)
    return context


def _show(certificate: Certificate, context: ssl.SSLContext) -> None:
    from shipworthy.manifest.certificates import CertificateUnusable

    try:
        certificate.load(context)
    except CertificateUnusable as unusable:
        raise StartRefused(
            "provider.client_cert",
            f"client_cert and client_key cannot be used: {unusable.what}",
            f"give {unusable.wanted}",
        ) from unusable

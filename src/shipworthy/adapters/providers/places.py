"""Where something is on the network: host and port out of a URL, and the host's addresses, remembered for a while."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from itertools import chain, zip_longest
from urllib.parse import urlsplit

from msgspec import Struct

from shipworthy.model.errors import StartRefused

DNS_TTL_S = 60
ADDRESSES_MAX = 8  # of one host that are tried
PORTS = {"http": 80, "https": 443}


class Place(Struct, frozen=True):
    """A host and port, spoken to with TLS or without."""

    host: str
    port: int
    tls: bool

    @property
    def authority(self) -> str:
        """``host:port``, as CONNECT wants it."""
        return f"{self._bracketed}:{self.port}"

    @property
    def host_header(self) -> str:
        """The authority without a port that goes without saying."""
        return self._bracketed if self.port == PORTS["https" if self.tls else "http"] else self.authority

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def place(url: str, code: str) -> Place:
    """The place that ``url`` names. Raises StartRefused with ``code``; the address may hold a secret and is not quoted."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError("neither http:// nor https:// with a host")
        host = parts.hostname if is_address(parts.hostname) else parts.hostname.encode("idna").decode("ascii")
        return Place(host, parts.port or PORTS[parts.scheme], parts.scheme == "https")
    except ValueError as reason:  # UnicodeError among them
        raise StartRefused(
            code,
            f"the address cannot be used: {reason.args[0]}",
            "write http:// or https://, a host and perhaps a port",
        ) from None


def is_address(host: str) -> bool:
    """Whether ``host`` needs no resolver."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Addresses:
    """The addresses of one host, asked again after DNS_TTL_S, or once none of them would do."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._asking = asyncio.Lock()  # five hundred requests to a new provider are one question
        self._known: tuple[str, ...] = (host,) if is_address(host) else ()
        self._until_s = float("inf") if self._known else 0.0

    async def all(self) -> tuple[str, ...]:
        """In the order in which to try them. Raises socket.gaierror."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._until_s:
            return self._known
        async with self._asking:
            if loop.time() >= self._until_s:
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                self._known = alternating([str(at[0]) for _, _, _, _, at in found])
                self._until_s = loop.time() + DNS_TTL_S
            return self._known

    def forget(self) -> None:
        """None of them answered: the host may have moved."""
        if not is_address(self._host):
            self._until_s = 0.0


def alternating(addresses: list[str]) -> tuple[str, ...]:
    """At most ADDRESSES_MAX of them, each once, both families by turns, the resolver's first one first (RFC 8305, 4)."""
    distinct = list(dict.fromkeys(addresses))
    first = [address for address in distinct if (":" in address) == (":" in distinct[0])]
    other = [address for address in distinct if address not in first]
    turns = chain.from_iterable(zip_longest(first, other))
    return tuple(address for address in turns if address is not None)[:ADDRESSES_MAX]

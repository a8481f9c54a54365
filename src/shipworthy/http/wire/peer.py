"""Who is at the other end of a connection, as the log calls it: an address, and whom its certificate names."""

from __future__ import annotations

import asyncio

NAME_CHARS_MAX = 128


def peer_of(transport: asyncio.BaseTransport) -> str:
    """``10.0.0.7:51234``, with a certificate ``10.0.0.7:51234 (billing.northwind.example)``."""
    address, name = address_of(transport.get_extra_info("peername")), named(transport.get_extra_info("peercert"))
    return f"{address} ({name})" if name else address


def address_of(said: object) -> str:
    """``host:port``; "" where there is neither."""
    return f"{said[0]}:{said[1]}" if isinstance(said, tuple) else ""


def named(certificate: object) -> str:
    """Whom a client's certificate names, for the log: by its first other name, else its subject; "" where none was shown."""
    if not isinstance(certificate, dict):
        return ""
    said = [str(value) for _, value in certificate.get("subjectAltName", ())]
    said += [str(value) for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    name = said[0] if said else f"serial {certificate.get('serialNumber', '?')}"
    return "".join(char if char.isprintable() else "?" for char in name[:NAME_CHARS_MAX])

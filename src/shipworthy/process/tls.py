"""TLS as the manifest wants it, for whoever of our processes serves."""

from __future__ import annotations

import ssl

from shipworthy.http.wire.encrypted import Refusing
from shipworthy.manifest.deployment import Bind
from shipworthy.model.observation import Refused
from shipworthy.model.op import Observe


def context_of(bind: Bind) -> ssl.SSLContext | None:
    """What new connections to ``bind`` speak; None = plain HTTP."""
    if bind.tls is None:
        return None
    from shipworthy.http.wire.tls import server_context  # it takes its time to import

    return server_context(bind.tls)


def strangers(observe: Observe) -> Refusing:
    """Says of every client with which no TLS came about why."""
    return lambda peer, reason: observe(Refused("", "server.no_tls", reason, peer))

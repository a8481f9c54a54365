"""What TLS means here: versions, ciphers and whose certificates, as one context for the connections of a bind."""

from __future__ import annotations

import ssl

from shipworthy.manifest.certificates import load_authorities
from shipworthy.manifest.deployment import Tls

CIPHERS_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, those with a key of the moment and authenticated encryption; all of TLS 1.3 are such."""


def server_context(tls: Tls) -> ssl.SSLContext:
    """A context for new connections. Raises CertificateUnusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS_1_2)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    tls.certificate.load(context)
    if tls.client_ca is not None:
        load_authorities(tls.client_ca, context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context

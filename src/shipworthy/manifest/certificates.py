"""Certificates as the manifest names them: looked at when it is read, and handed to TLS as they were then.

OpenSSL takes a certificate and its key from files only, and says of a bad one little more than that it is bad. So what can
be wrong with them is found out here, in words, and they are given to it as files that have no name.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import IO, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shipworthy.manifest.reference import Secret

NAMES_SHOWN_MAX = 4


class CertificateUnusable(Exception):
    """What was given as ``which`` (cert, key, client_ca) cannot be used."""

    def __init__(self, which: str, what: str, wanted: str, hint: str = "") -> None:
        self.which = which
        self.what = what
        self.wanted = wanted
        self.hint = hint
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with those between it and its authority (``chain``), and its key; both in PEM."""

    chain: Secret
    key: Secret

    def look(self) -> Looked:
        """What it says of itself. Raises CertificateUnusable where the two do not make a certificate that serves."""
        certificates = _certificates(self.chain.reveal(), "cert")
        own, key = certificates[0], _key(self.key.reveal())
        if own.public_key() != key.public_key():
            if any(other.public_key() == key.public_key() for other in certificates):
                wanted = "the certificate that belongs to the key first, then the one that signed it, and so on"
                raise CertificateUnusable("cert", "the chain begins with another certificate", wanted)
            wanted = "the key that the certificate was made for"
            hint = "where files are changed one after the other, the second change puts it right"
            raise CertificateUnusable("key", "the key does not belong to the certificate", wanted, hint)
        self.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        return Looked(_names(own), own.not_valid_before_utc, own.not_valid_after_utc)

    def load(self, context: ssl.SSLContext) -> None:
        """Makes it what ``context`` shows. Raises CertificateUnusable."""
        with _nameless(self.chain.reveal()) as chain, _nameless(self.key.reveal()) as key:
            try:
                context.load_cert_chain(chain, key, password=_no_password)
            except (OSError, ValueError) as reason:  # ssl.SSLError among them
                why = f"OpenSSL does not take it: {_reason(reason)}"
                wanted = "a certificate chain and its key in PEM, strong enough for this machine's OpenSSL"
                raise CertificateUnusable("cert", why, wanted) from reason


@dataclass(frozen=True, slots=True)
class Looked:
    """What a certificate says: whom it stands for, and from when to when."""

    names: tuple[str, ...]
    begins: datetime
    ends: datetime

    def __str__(self) -> str:
        more = f" and {len(self.names) - NAMES_SHOWN_MAX} more" if len(self.names) > NAMES_SHOWN_MAX else ""
        return ", ".join(self.names[:NAMES_SHOWN_MAX]) + more


def load_authorities(pem: Secret, context: ssl.SSLContext) -> None:
    """Makes ``context`` trust the authorities in ``pem`` too. Raises CertificateUnusable."""
    wanted = "the certificates of one or more authorities, in PEM"
    found = _certificates(pem.reveal(), "client_ca")
    if not any(_certifies(certificate) for certificate in found):
        hint = "a certificate that signs others has CA:TRUE in its basic constraints"
        raise CertificateUnusable("client_ca", "none of these certificates is an authority's", wanted, hint)
    try:
        context.load_verify_locations(cadata="".join(_pem(certificate) for certificate in found))
    except (OSError, ValueError) as reason:
        why = f"OpenSSL does not take it: {_reason(reason)}"
        raise CertificateUnusable("client_ca", why, wanted) from reason


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _certificates(pem: str, which: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError as reason:
        hint = "it begins with -----BEGIN CERTIFICATE-----"
        raise CertificateUnusable(which, "there is no certificate in it", "certificates in PEM", hint) from reason


def _key(pem: str) -> PrivateKeyTypes:
    wanted = "a private key in PEM, not encrypted"
    try:
        return load_pem_private_key(pem.encode(), None)
    except TypeError as reason:  # the library's word for: it is encrypted
        hint = "decrypt it (openssl pkey -in ENCRYPTED -out KEY) into a file that the server alone may read"
        raise CertificateUnusable(
            "key", "the key is encrypted, and nobody is there to type the password", wanted, hint
        ) from reason
    except (ValueError, UnsupportedAlgorithm) as reason:
        hint = "it begins with -----BEGIN PRIVATE KEY-----"
        raise CertificateUnusable("key", "there is no private key in it", wanted, hint) from reason


def _certifies(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return certificate.version is x509.Version.v1  # before there were extensions, every one could


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Whom clients may believe to have reached; the common name is none of them (RFC 9110 §4.3.4)."""
    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(str(name.value) for name in said if isinstance(name, x509.DNSName | x509.IPAddress))


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # asked on a terminal otherwise


def _reason(reason: OSError | ValueError) -> str:
    said = reason.reason if isinstance(reason, ssl.SSLError) else None
    return (said or str(reason)).replace("_", " ").lower()


@contextlib.contextmanager
def _nameless(content: str) -> Iterator[str]:
    """A path to ``content`` for as long as the context lasts: in memory where the system has such files, else unlinked."""
    with _file() as file:
        file.write(content.encode())
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("certificate", os.MFD_CLOEXEC), "w+b")
    return cast("IO[bytes]", tempfile.TemporaryFile())

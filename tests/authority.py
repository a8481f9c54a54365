"""Certificates for tests, made on the spot."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CERTIFIES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as files."""

    cert: Path
    key: Path

    def client(self, authority: Authority) -> ssl.SSLContext:
        """A client's context that shows it, and trusts ``authority``."""
        context = authority.client()
        context.load_cert_chain(self.cert, self.key)
        return context


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Test authority {name}")])
        certificate = (
            self._builder(self._name, self._key.public_key(), -1, 1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(CERTIFIES, critical=True)
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, from_days: int, to_days: int
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=from_days))
            .not_valid_after(now + timedelta(days=to_days))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def issue(
        self,
        name: str = "server",
        address: str = "127.0.0.1",
        from_days: int = -1,
        to_days: int = 30,
        *,
        host: str = "",
    ) -> Issued:
        """A certificate for ``address``, or for ``host`` where one is given: in files that are called after ``name``."""
        key = ec.generate_private_key(ec.SECP256R1())
        said = x509.DNSName(host) if host else x509.IPAddress(ipaddress.ip_address(address))
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH if host else ExtendedKeyUsageOID.SERVER_AUTH])
        builder = (
            self._builder(x509.Name([]), key.public_key(), from_days, to_days)
            .add_extension(x509.SubjectAlternativeName([said]), critical=True)
            .add_extension(usage, critical=False)
        )
        issued = Issued(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        signed = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        for path, content in ((issued.key, private), (issued.cert, signed)):
            path.with_suffix(".new").write_bytes(content)
            path.with_suffix(".new").rename(path)
        return issued

    def server(self, address: str = "127.0.0.1", from_days: int = -1, to_days: int = 1) -> ssl.SSLContext:
        """A server's context with a certificate for ``address``."""
        issued = self.issue("server", address, from_days, to_days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.cert, issued.key)
        return context

    def client(self) -> ssl.SSLContext:
        """A client's context that trusts this authority alone."""
        return ssl.create_default_context(cafile=self.file)

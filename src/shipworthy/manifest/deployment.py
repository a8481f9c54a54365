"""What processes need before any request: binds, store, keys, issuers, telemetry, alerts. Built only by ``link``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shipworthy.manifest.reference import Secret

if TYPE_CHECKING:  # what looks at certificates takes its time to import, and is not always wanted
    from shipworthy.manifest.certificates import Certificate


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate that is shown, and the authorities of those that clients must show; None = clients need none."""

    certificate: Certificate
    client_ca: Secret | None


@dataclass(frozen=True, slots=True)
class Bind:
    """An address to listen on. Port 0 asks the kernel for a free one. Without ``tls`` plain HTTP is spoken there."""

    host: str
    port: int
    tls: Tls | None = None

    @property
    def scheme(self) -> str:
        return "http" if self.tls is None else "https"


@dataclass(frozen=True, slots=True)
class Server:
    """The data plane."""

    bind: Bind
    workers: int
    drain_seconds: float


@dataclass(frozen=True, slots=True)
class Store:
    """Embedded under ``path``, or managed at ``url``: exactly one is set."""

    path: Path | None
    url: Secret | None
    migrate_url: Secret | None


@dataclass(frozen=True, slots=True)
class Claims:
    """Names of the claims that are read; dots go into objects."""

    tenant: str
    subject: str
    groups: str
    clearance: str
    actor: str


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer of JWTs. ``jwks_uri`` "" = by discovery; ``tenants`` None = it may speak for every tenant."""

    issuer: str
    jwks_uri: str
    audience: tuple[str, ...]
    algorithms: tuple[str, ...]
    claims: Claims
    leeway_s: int
    tenants: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Identity:
    """How senders prove who they are. ``operators_without_tenant`` lets an operator's token leave the tenant out."""

    issuers: tuple[Issuer, ...]
    service_keys: bool
    development_issuer: bool
    operators_without_tenant: bool


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where observations go, besides the log. None = nowhere."""

    otlp_endpoint: str | None
    prometheus: Bind | None


@dataclass(frozen=True, slots=True)
class AlertWebhook:
    """Where alerts are posted, signed with ``secret`` (at least 16 bytes). An address that may post is a secret too."""

    url: Secret
    secret: Secret


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything about the processes. ``folder`` is the manifest's; relative paths were resolved against it."""

    folder: Path
    server: Server
    admin: Bind
    store: Store
    keys_file: Path
    identity: Identity
    telemetry: Telemetry
    alerts: AlertWebhook | None = None

    @property
    def control_binds(self) -> dict[str, Bind]:
        """Where the control plane listens, by name."""
        prometheus = self.telemetry.prometheus
        return {"admin": self.admin} | ({"prometheus": prometheus} if prometheus else {})

    @property
    def binds(self) -> dict[str, Bind]:
        """Where anything of the deployment listens, by name."""
        return {"server": self.server.bind} | self.control_binds

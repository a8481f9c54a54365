"""What processes need before any request: binds, store, keys, issuers, telemetry, alerts. Built only by ``link``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shipworthy.manifest.reference import Secret


@dataclass(frozen=True, slots=True)
class Bind:
    """An address to listen on. Port 0 asks the kernel for a free one."""

    host: str
    port: int


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

"""``server``, ``admin``, ``store``, ``keys``, ``identity``, ``telemetry``, ``alerts`` → ``Deployment``."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from shipworthy.manifest.deployment import (
    AlertWebhook,
    Bind,
    Claims,
    Deployment,
    Identity,
    Issuer,
    Server,
    Store,
    Telemetry,
)
from shipworthy.manifest.link_tls import link_tls
from shipworthy.manifest.linking import Linking
from shipworthy.manifest.problem import KeyPath, quoted
from shipworthy.manifest.reference import PLACEHOLDER
from shipworthy.manifest.shape_identity import IssuerShape
from shipworthy.manifest.shape_process import AdminShape, PrometheusShape, ServerShape

STORE_PATH = ".shipworthy"
KEYS_PATH = ".shipworthy/keys"
WEBHOOK_SECRET_BYTES_MIN = 16


def link_deployment(linking: Linking, folder: Path) -> Deployment:
    """Everything that processes need."""
    manifest = linking.manifest
    server = Server(
        _bind(linking, ("server",), manifest.server),
        manifest.server.workers,
        manifest.server.drain_seconds,
    )
    admin = _bind(linking, ("admin",), manifest.admin)
    if not is_loopback(admin.host) and (admin.tls is None or admin.tls.client_ca is None):
        what = "the control plane listens beyond this machine"
        rules = "network rules" if admin.tls else "TLS (admin.tls, or your own) and network rules"
        linking.tree.warn(("admin", "host"), what, said=quoted(admin.host), hint=f"put it behind {rules}")
    telemetry = _telemetry(linking)
    _distinct(linking, {"server": server.bind, "admin": admin, "telemetry": telemetry.prometheus})
    return Deployment(
        folder=folder,
        server=server,
        admin=admin,
        store=_store(linking, folder),
        keys_file=manifest.keys.file or folder / KEYS_PATH,
        identity=_identity(linking),
        telemetry=telemetry,
        alerts=_alerts(linking),
    )


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _bind(linking: Linking, path: KeyPath, shape: ServerShape | AdminShape | PrometheusShape) -> Bind:
    host = shape.host
    if any(char.isspace() or char in "/:@" for char in host) and not _is_address(host):
        linking.tree.report((*path, "host"), "not a host", wanted="an address or a name, without scheme or port")
    return Bind(host.strip("[]"), shape.port, link_tls(linking, (*path, "tls"), shape.tls))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _distinct(linking: Linking, binds: dict[str, Bind | None]) -> None:
    paths: dict[str, KeyPath] = {"telemetry": ("telemetry", "prometheus", "port")}
    taken: dict[int, str] = {}
    for section, bind in binds.items():
        if bind is None or bind.port == 0:
            continue
        if bind.port in taken:
            what = f"{taken[bind.port]} already listens on port {bind.port}"
            linking.tree.report(paths.get(section, (section, "port")), what, said=str(bind.port), wanted="another port")
        taken.setdefault(bind.port, section)


def _store(linking: Linking, folder: Path) -> Store:
    shape = linking.manifest.store
    if shape.url is not None and shape.path is not None:
        linking.tree.report(("store",), "both an embedded and a managed store", said="", wanted="path, or url")
    if shape.migrate_url is not None and "url" not in linking.shaped.names(("store",)):
        linking.tree.report(
            ("store", "migrate_url"), "migrate_url without url", said="", wanted="url as well", hint="add url"
        )
    if shape.url is not None:
        return Store(None, shape.url, shape.migrate_url)
    return Store(shape.path or folder / STORE_PATH, None, None)


def _telemetry(linking: Linking) -> Telemetry:
    shape = linking.manifest.telemetry
    endpoint = None
    if shape.otlp is not None:
        endpoint = shape.otlp.endpoint
        if not _is_url(endpoint):
            path: KeyPath = ("telemetry", "otlp", "endpoint")
            linking.tree.report(path, "not an endpoint", said=quoted(endpoint), wanted="http://… or https://…")
    prometheus = None
    if shape.prometheus is not None:
        prometheus = _bind(linking, ("telemetry", "prometheus"), shape.prometheus)
    return Telemetry(endpoint, prometheus)


def _alerts(linking: Linking) -> AlertWebhook | None:
    shape = linking.manifest.alerts.webhook
    if shape is None:
        return None
    path: KeyPath = ("alerts", "webhook")
    url = shape.url.reveal()
    if url != PLACEHOLDER:
        why = "who is told of money, and what, could be read and changed on the way"
        _https_or_loopback(linking, (*path, "url"), url, why, said="an address (not shown)")
    if len(shape.secret.reveal().encode()) < WEBHOOK_SECRET_BYTES_MIN:
        what, wanted = "too short to sign with", f"at least {WEBHOOK_SECRET_BYTES_MIN} bytes"
        hint = "openssl rand -hex 32 makes a good one"
        linking.tree.report((*path, "secret"), what, said="a value (not shown)", wanted=wanted, hint=hint)
    return AlertWebhook(shape.url, shape.secret)


def _is_url(said: str) -> bool:
    try:
        parts = urlsplit(said)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _identity(linking: Linking) -> Identity:
    shape = linking.manifest.identity
    path: KeyPath = ("identity",)
    if not (shape.issuers or shape.service_keys or shape.development_issuer):
        wanted = "issuers, service_keys or development_issuer"
        linking.tree.report(path, "nobody can prove who they are", said="", wanted=wanted)
    if shape.development_issuer and linking.manifest.environment.lower() in ("production", "prod", "live"):
        what = "anyone who can read this machine's keys can mint tokens, in production"
        wanted = "false, and an issuer of yours"
        linking.tree.report((*path, "development_issuer"), what, said="true", wanted=wanted)
    issuers = [_issuer(linking, (*path, "issuers", index), said) for index, said in enumerate(shape.issuers)]
    for index, issuer in enumerate(issuers):
        if issuer.issuer in [earlier.issuer for earlier in issuers[:index]]:
            here = (*path, "issuers", index, "issuer")
            linking.tree.report(
                here, "this issuer stands here twice", wanted="each issuer once", hint="audience may be a list"
            )
    operators = linking.manifest.operators
    optional = operators is not None and operators.tenant_claim_optional
    return Identity(tuple(issuers), shape.service_keys, shape.development_issuer, optional)


def _issuer(linking: Linking, path: KeyPath, shape: IssuerShape) -> Issuer:
    why = "keys that travel over http can be exchanged on the way"  # and whoever can change them can be anyone
    _https_or_loopback(linking, (*path, "issuer"), shape.issuer, why)
    if shape.jwks_uri is not None:
        _https_or_loopback(linking, (*path, "jwks_uri"), shape.jwks_uri, why)
    tenants = linking.shaped.names(("tenants",))
    for index, name in enumerate(shape.tenants or ()):
        if name not in tenants:
            linking.unknown((*path, "tenants", index), "tenant", name, tenants)
    return Issuer(
        issuer=shape.issuer,
        jwks_uri=shape.jwks_uri or "",
        audience=tuple(shape.audience),
        algorithms=tuple(shape.algorithms),
        claims=Claims(**shape.claims.model_dump()),
        leeway_s=shape.leeway_seconds,
        tenants=frozenset(shape.tenants) if shape.tenants is not None else None,
    )


def _https_or_loopback(linking: Linking, path: KeyPath, url: str, why: str, *, said: str | None = None) -> None:
    """Reports an address that is not https, nor http on loopback: ``why`` is what http would risk."""
    if not _is_url(url):
        linking.tree.report(path, "not a URL", said=said, wanted="https://…")
    elif urlsplit(url).username is not None or urlsplit(url).password is not None:
        linking.tree.report(
            path, "credentials stand in an address", said="an address (not shown)", wanted="https://HOST/…"
        )
    elif urlsplit(url).scheme == "http" and not is_loopback(urlsplit(url).hostname or ""):
        linking.tree.report(path, why, said=said, wanted="https://…", hint="http is allowed on loopback only")

"""The sections that a process needs before any request: server, admin, store, keys, telemetry, alerts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shipworthy.manifest.reference import Beside, Concealed, Referable, Secret
from shipworthy.manifest.shape_values import Number, Port, Shape, Word


class TlsShape(Shape):
    """TLS on a bind: the certificate that it shows, and whose certificates clients must show."""

    cert: Secret
    key: Secret
    client_ca: Secret | None = None


class ServerShape(Shape):
    """The data plane's bind and its processes. Port 0 asks the kernel for a free one."""

    host: Word = "127.0.0.1"
    port: Port = 8080
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    drain_seconds: Annotated[Number, Field(ge=0, le=3600)] = 20.0
    tls: TlsShape | None = None


class AdminShape(Shape):
    """The control plane's bind: admin API and console, a process of its own."""

    host: Word = "127.0.0.1"
    port: Port = 8090
    tls: TlsShape | None = None


class StoreShape(Shape):
    """PostgreSQL: embedded under ``path``, or managed at ``url`` (``migrate_url`` for the owner's role)."""

    path: Beside | None = None
    url: Secret | None = None
    migrate_url: Secret | None = None


class KeysShape(Shape):
    """The key-encryption keys."""

    file: Beside | None = None


class OtlpShape(Shape):
    """Where traces go."""

    endpoint: Referable


class PrometheusShape(Shape):
    """Where /metrics binds."""

    host: Word = "127.0.0.1"
    port: Port = 9090
    tls: TlsShape | None = None


class TelemetryShape(Shape):
    """Where observations go, besides the log."""

    otlp: OtlpShape | None = None
    prometheus: PrometheusShape | None = None


class WebhookShape(Shape):
    """Where alerts are posted, and the secret that signs them."""

    url: Concealed
    secret: Secret


class AlertsShape(Shape):
    """Who is told when a budget passes a threshold, besides the log."""

    webhook: WebhookShape | None = None

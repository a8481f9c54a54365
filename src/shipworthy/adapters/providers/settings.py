"""What a manifest may say about a provider that is reached over HTTP, and the endpoint that it means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from shipworthy.adapters.providers.http import Endpoint
from shipworthy.manifest.reference import PLACEHOLDER
from shipworthy.manifest.specs import Beside, Config, Referable, Secret
from shipworthy.model.errors import StartRefused
from shipworthy.model.route import Timeouts

if TYPE_CHECKING:  # what looks at certificates takes its time to import, and is not always wanted
    from shipworthy.manifest.certificates import Certificate

OutputCapField = Literal["max_tokens", "max_completion_tokens"]
IDLE_MS_MAX = 60_000
REPLY_BYTES_MAX = 64 << 20  # 2,048 embeddings of 3,072 dimensions as base64 are 34 MB
KEEPALIVE_MS = 4_000  # uvicorn, vLLM, Node and cpp-httplib close idle connections after 5 s
EXTRA_HEADERS_MAX = 32

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,8190}[\x21-\x7e])?")
_OURS = {
    "host", "connection", "content-length", "content-type", "content-encoding", "transfer-encoding", "accept",
    "accept-encoding", "te", "trailer", "upgrade", "expect", "cookie", "traceparent", "user-agent", "proxy-authorization",
}  # fmt: skip


def _endpoint_url(said: str) -> str:
    parts = urlsplit(said)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("wanted: http:// or https:// with a host, and the path up to and with /v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials do not belong into an address: use credentials: {env: NAME}")
    if parts.query or parts.fragment:
        raise ValueError("an address without ? and #")
    return said.rstrip("/")


def _header_names(said: dict[str, Secret]) -> dict[str, Secret]:
    for name in said:
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name[:40]!r} cannot be the name of a header")
        if name.lower() in _OURS:
            raise ValueError(f"the header {name} is Shipworthy's own to send")
    return said


Url = Annotated[Referable, AfterValidator(_endpoint_url)]
Headers = Annotated[dict[str, Secret], AfterValidator(_header_names), Field(max_length=EXTRA_HEADERS_MAX)]


class HttpConfig(Config):
    """What all kinds over HTTP share. Every value has a safe default."""

    headers: Headers = Field(default_factory=dict)  # sent with every request; values by reference only
    proxy: Secret | None = None  # an HTTP proxy's address, by reference; none is ever taken from the environment
    ca_file: Beside | None = None  # authorities to trust instead of the machine's
    client_cert: Secret | None = None  # the certificate that the provider is shown, in PEM
    client_key: Secret | None = None  # its key
    output_cap_field: OutputCapField = "max_tokens"
    ask_usage: bool = True  # False for a server that rejects stream_options
    idle_ms_max: int = Field(default=IDLE_MS_MAX, ge=100, le=3_600_000)  # between two pieces of an answer
    keepalive_ms: int = Field(default=KEEPALIVE_MS, ge=0, le=600_000)  # 0 = a connection for each request
    reply_bytes_max: int = Field(default=REPLY_BYTES_MAX, ge=1_024, le=1 << 30)

    def endpoint(self, base_url: str, credentials: Secret | None, timeouts: Timeouts) -> Endpoint:
        """Where requests go and with which headers. Raises StartRefused for a secret that none can carry."""
        headers = {name.lower(): header_value(name, secret) for name, secret in self.headers.items()}
        if credentials is not None:
            headers["authorization"] = f"Bearer {header_value('credentials', credentials)}"
        return Endpoint(
            base_url=base_url,
            headers=headers,
            timeouts=timeouts,
            idle_ms_max=self.idle_ms_max,
            keepalive_ms=self.keepalive_ms,
            reply_bytes_max=self.reply_bytes_max,
            proxy=self.proxy.reveal() if self.proxy else "",
            ca_file=self.ca_file,
            certificate=self._certificate(),
        )

    @model_validator(mode="after")
    def _looked_at(self) -> Self:
        """A certificate that no provider could be shown is a problem of the manifest."""
        if (self.client_cert is None) != (self.client_key is None):
            raise ValueError("client_cert and client_key go together: one of them stands alone")
        if self.client_cert is not None and str(getattr(self, "base_url", "")).startswith("http:"):
            raise ValueError("client_cert: a certificate is shown over https only")
        certificate = self._certificate()
        if certificate is not None and PLACEHOLDER not in (certificate.chain.reveal(), certificate.key.reveal()):
            from shipworthy.manifest.certificates import CertificateUnusable

            try:
                certificate.look()
            except CertificateUnusable as unusable:
                which = "client_key" if unusable.which == "key" else "client_cert"
                raise ValueError(f"{which}: {unusable.what}; wanted: {unusable.wanted}") from None
        return self

    def _certificate(self) -> Certificate | None:
        if self.client_cert is None or self.client_key is None:
            return None
        from shipworthy.manifest.certificates import Certificate

        return Certificate(self.client_cert, self.client_key)

    def secrets(self, credentials: Secret | None) -> tuple[str, ...]:
        """What must never be quoted from an answer, longest first."""
        known = [secret.reveal() for secret in (credentials, self.proxy, *self.headers.values()) if secret]
        return tuple(sorted(filter(None, known), key=len, reverse=True))


def header_value(name: str, secret: Secret) -> str:
    """The secret's value, if a header can carry it. Raises StartRefused, which never quotes it."""
    value = secret.reveal()
    if not _HEADER_VALUE.fullmatch(value):
        got = "it is empty" if not value else "it holds blanks at an end, line breaks or characters beyond ASCII"
        raise StartRefused(
            "provider.unusable_secret",
            f"{name} ({secret!r}) cannot be sent in a header: {got}",
            "store the bare value: printable ASCII on one line, without quotes",
        )
    return value

"""What the head of a request says, checked; and what the head of an answer says."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable

from shipworthy.model.chat import Dialect
from shipworthy.model.errors import Refusal
from shipworthy.model.identity import Credentials
from shipworthy.model.ledger import Standing
from shipworthy.model.money import NANO_PER_USD
from shipworthy.ports import Arrival, Opening

HEADER_CHARS_MAX = 256
"""Of a header that is stored or compared (session, data class, idempotency key)."""
CREDENTIAL_CHARS_MAX = 20_000

Headers = list[tuple[bytes, bytes]]

_CREDENTIALS = (b"authorization", b"x-api-key", b"api-key", b"x-shipworthy-subject-token")
_SHORT = (b"x-shipworthy-data-class", b"x-shipworthy-session", b"idempotency-key")
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_PRINTABLE = re.compile(rb"[\x20-\x7e]*")


class Head:
    """The headers that mean something here, each at most once; the rest is not looked at."""

    __slots__ = ("_found",)

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._found: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in _CREDENTIALS:
                self._once(name, value, CREDENTIAL_CHARS_MAX, "identify.conflicting_credentials")
            elif name in _SHORT:
                self._once(name, value, HEADER_CHARS_MAX, "")
            else:
                self._found.setdefault(name, value)

    def _once(self, name: bytes, value: bytes, chars_max: int, conflict: str) -> None:
        said = name.decode("latin-1")
        if len(value) > chars_max:
            raise Refusal("server.header_invalid", header=said, reason=f"longer than {chars_max} characters")
        if not _PRINTABLE.fullmatch(value):
            raise Refusal(
                "server.header_invalid", header=said, reason="it holds characters that are not printable ASCII"
            )
        if self._found.setdefault(name, value) != value:
            if conflict:
                raise Refusal(conflict, detail=f"{said} twice, with different values")
            raise Refusal("server.header_invalid", header=said, reason="it is there twice, with different values")

    def text(self, name: bytes) -> str:
        return self._found.get(name, b"").decode("latin-1").strip()

    @property
    def traceparent(self) -> str:
        """The W3C trace context when it is well formed, else ""."""
        said = self.text(b"traceparent")
        return said if _TRACEPARENT.fullmatch(said) else ""

    def credentials(self) -> Credentials:
        authorization = self.text(b"authorization")
        scheme, _, token = authorization.partition(" ")
        if authorization and scheme.lower() != "bearer":
            raise Refusal("identify.malformed", detail="the Authorization header's scheme is not Bearer")
        return Credentials(
            bearer=token.strip(),
            x_api_key=self.text(b"x-api-key"),
            api_key=self.text(b"api-key"),
            subject_token=self.text(b"x-shipworthy-subject-token"),
        )

    def check_json(self) -> None:
        """Refuses a body that is not plain JSON, before it is read."""
        media_type = self.text(b"content-type").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise Refusal("decode.media_type", detail=f"content-type {media_type[:80]!r}")
        if self.text(b"content-encoding").lower() not in ("", "identity"):
            raise Refusal("decode.encoding")

    def arrival(self, dialect: Dialect, read_body: Callable[[], Awaitable[bytes]], peer: str) -> Arrival:
        """What the stages get to know of the head."""
        return Arrival(
            dialect=dialect,
            credentials=self.credentials(),
            read_body=read_body,
            data_class=self.text(b"x-shipworthy-data-class"),
            session=self.text(b"x-shipworthy-session"),
            idempotency_key=self.text(b"idempotency-key"),
            peer=peer,
        )


def opening_headers(opening: Opening) -> Headers:
    """The head of an answer: which model, under what, at which cost, and what is left of the limits."""
    headers = [
        (b"x-shipworthy-use-case", opening.use_case.encode()),
        (b"x-shipworthy-model", opening.model.encode()),
        (b"x-shipworthy-source", opening.source.encode()),
        (b"x-shipworthy-output-tokens-max", b"%d" % opening.output_tokens_max),
    ]
    if opening.release:
        headers.append((b"x-shipworthy-release", opening.release.encode()))
    if opening.cost_nano is not None and not opening.stream:
        headers.append((b"x-shipworthy-cost-usd", usd(opening.cost_nano).encode()))
    if opening.hold is not None:
        headers.extend(limit_headers(opening.hold.standing))
    return headers


def limit_headers(standing: Standing) -> Headers:
    """x-ratelimit-*, as OpenAI's clients know them; a kind without a limit is not mentioned."""
    headers: Headers = []
    if standing.limit_requests:
        headers += [
            (b"x-ratelimit-limit-requests", b"%d" % standing.limit_requests),
            (b"x-ratelimit-remaining-requests", b"%d" % standing.remaining_requests),
            (b"x-ratelimit-reset-requests", b"%.3fs" % standing.reset_requests_s),
        ]
    if standing.limit_tokens:
        headers += [
            (b"x-ratelimit-limit-tokens", b"%d" % standing.limit_tokens),
            (b"x-ratelimit-remaining-tokens", b"%d" % standing.remaining_tokens),
            (b"x-ratelimit-reset-tokens", b"%.3fs" % standing.reset_tokens_s),
        ]
    return headers


def usd(nano: int) -> str:
    """Nano-USD as a decimal without loss: 1_500 → 0.000001500."""
    return f"{nano // NANO_PER_USD}.{nano % NANO_PER_USD:09d}"

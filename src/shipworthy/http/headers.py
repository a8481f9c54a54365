"""What the head of a request says, checked; and what the head of an answer says."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache

from shipworthy.http.wire.answer import fields
from shipworthy.model.chat import Dialect
from shipworthy.model.errors import Refusal
from shipworthy.model.identity import Credentials
from shipworthy.model.ledger import Standing
from shipworthy.model.money import NANO_PER_USD
from shipworthy.ports import Arrival, Opening

HEADER_CHARS_MAX = 256
"""Of a header that is stored or compared (session, data class, idempotency key)."""
CREDENTIAL_CHARS_MAX = 20_000

STANDING_FIELDS_MAX = 512
"""Of use case, model, source and release, how many combinations are kept rendered."""

_CONFLICT = "identify.conflicting_credentials"
_READ = {
    b"authorization": (CREDENTIAL_CHARS_MAX, _CONFLICT),
    b"x-api-key": (CREDENTIAL_CHARS_MAX, _CONFLICT),
    b"api-key": (CREDENTIAL_CHARS_MAX, _CONFLICT),
    b"x-shipworthy-subject-token": (CREDENTIAL_CHARS_MAX, _CONFLICT),
    b"x-shipworthy-data-class": (HEADER_CHARS_MAX, ""),
    b"x-shipworthy-session": (HEADER_CHARS_MAX, ""),
    b"idempotency-key": (HEADER_CHARS_MAX, ""),
    b"content-type": (0, ""),
    b"content-length": (0, ""),
    b"content-encoding": (0, ""),
    b"traceparent": (0, ""),
}
"""How long each may be, and the code with which two that differ are refused; 0 = any length, and the first counts."""
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_PRINTABLE = bytes(range(0x20, 0x7F))


class Head:
    """The headers that mean something here, each at most once; the rest is not looked at."""

    __slots__ = ("_found",)

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._found: dict[bytes, str] = {}
        for name, value in headers:
            if name in _READ:
                chars_max, conflict = _READ[name]
                if chars_max:
                    self._once(name, value, chars_max, conflict)
                else:
                    self._found.setdefault(name, value.decode("latin-1").strip())

    def _once(self, name: bytes, value: bytes, chars_max: int, conflict: str) -> None:
        if len(value) > chars_max:
            raise _invalid(name, f"longer than {chars_max} characters")
        if value.translate(None, _PRINTABLE):
            raise _invalid(name, "it holds characters that are not printable ASCII")
        text = value.decode("ascii").strip()
        if self._found.setdefault(name, text) != text:
            if conflict:
                raise Refusal(conflict, detail=f"{name.decode()} twice, with different values")
            raise _invalid(name, "it is there twice, with different values")

    def text(self, name: bytes) -> str:
        return self._found.get(name, "")

    @property
    def traceparent(self) -> str:
        """The W3C trace context when it is well formed, else ""."""
        said = self._found.get(b"traceparent", "")
        return said if said and _TRACEPARENT.fullmatch(said) else ""

    def credentials(self) -> Credentials:
        found = self._found.get
        scheme, _, token = found(b"authorization", "").partition(" ")
        if scheme and scheme.lower() != "bearer":
            raise Refusal("identify.malformed", detail="the Authorization header's scheme is not Bearer")
        return Credentials(
            bearer=token.strip(),
            x_api_key=found(b"x-api-key", ""),
            api_key=found(b"api-key", ""),
            subject_token=found(b"x-shipworthy-subject-token", ""),
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
        found = self._found.get
        return Arrival(
            dialect=dialect,
            credentials=self.credentials(),
            read_body=read_body,
            data_class=found(b"x-shipworthy-data-class", ""),
            session=found(b"x-shipworthy-session", ""),
            idempotency_key=found(b"idempotency-key", ""),
            peer=peer,
        )


def _invalid(name: bytes, reason: str) -> Refusal:
    return Refusal("server.header_invalid", header=name.decode(), reason=reason)


def opening_fields(opening: Opening) -> bytes:
    """The head of an answer: which model, under what, at which cost, and what is left of the limits."""
    said = b"%bx-shipworthy-output-tokens-max: %d\r\n" % (
        _standing_fields(opening.use_case, opening.model, opening.source, opening.release),
        opening.output_tokens_max,
    )
    if opening.cost_nano is not None and not opening.stream:
        said += b"x-shipworthy-cost-usd: %b\r\n" % usd(opening.cost_nano).encode()
    if opening.hold is not None:
        said += limit_fields(opening.hold.standing)
    return said


@lru_cache(maxsize=STANDING_FIELDS_MAX)
def _standing_fields(use_case: str, model: str, source: str, release: str) -> bytes:
    """What is the same on many answers."""
    said = [("x-shipworthy-use-case", use_case), ("x-shipworthy-model", model), ("x-shipworthy-source", source)]
    if release:
        said.append(("x-shipworthy-release", release))
    return fields(said)


def limit_fields(standing: Standing) -> bytes:
    """x-ratelimit-*, as OpenAI's clients know them; a kind without a limit is not mentioned."""
    said = b""
    if standing.limit_requests:
        said = _REQUESTS % (standing.limit_requests, standing.remaining_requests, standing.reset_requests_s)
    if standing.limit_tokens:
        said += _TOKENS % (standing.limit_tokens, standing.remaining_tokens, standing.reset_tokens_s)
    return said


_REQUESTS = (
    b"x-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %.3fs\r\n"
)
_TOKENS = b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\nx-ratelimit-reset-tokens: %.3fs\r\n"


def usd(nano: int) -> str:
    """Nano-USD as a decimal without loss: 1_500 → 0.000001500."""
    return f"{nano // NANO_PER_USD}.{nano % NANO_PER_USD:09d}"

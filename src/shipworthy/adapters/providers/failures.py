"""What a provider's refusal means: one table of status → kind, its message in bounded words, when to come back.

Pure functions over a status, headers and bytes. A secret never passes: our own credentials and whatever looks like one are
blotted out before anything is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from shipworthy.model.errors import FailureKind, ProviderFailure

ERROR_BODY_BYTES_MAX = 16_384
MESSAGE_CHARS_MAX = 500
REQUEST_ID_CHARS_MAX = 128
RETRY_AFTER_S_MAX = 3_600.0
BLOT = "[secret]"

# The exact statuses first; what is in no line is decided by its hundred.
KINDS: dict[int, FailureKind] = {
    401: FailureKind.UNAUTHORISED,
    402: FailureKind.UNAUTHORISED,  # our account is out of credit there
    403: FailureKind.UNAUTHORISED,
    404: FailureKind.INVALID,  # no such model or endpoint there: another provider may well have it
    405: FailureKind.INVALID,
    407: FailureKind.UNAUTHORISED,
    408: FailureKind.SERVER_ERROR,  # the provider waited too long for itself or for us: the request is not at fault
    409: FailureKind.SERVER_ERROR,
    410: FailureKind.INVALID,
    421: FailureKind.INVALID,
    425: FailureKind.SERVER_ERROR,
    429: FailureKind.RATE_LIMITED,
    529: FailureKind.RATE_LIMITED,  # "overloaded", as some providers say it
}
_BY_HUNDRED = {4: FailureKind.REJECTED, 5: FailureKind.SERVER_ERROR}

_LOOKS_SECRET = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf)[-_](?=[A-Za-z_\-]*[0-9*])[A-Za-z0-9_\-*.]{8,}|\bBearer\s+[^\s\"',]{4,}", re.IGNORECASE
)


class _Said(msgspec.Struct):
    message: str = ""
    code: str | int | None = None


class _Wrapped(msgspec.Struct):
    """The shapes in which servers of this dialect say what is wrong."""

    error: _Said | str | None = None
    message: str | None = None
    detail: msgspec.Raw = msgspec.Raw()  # a text, or a validator's list


def kind_of(status: int) -> FailureKind:
    """The one table. A redirect is INVALID: where a request goes is written in the manifest, not in an answer."""
    return KINDS.get(status) or _BY_HUNDRED.get(status // 100, FailureKind.INVALID)


def refused(
    status: int, header: Callable[[str], str], body: bytes, *, unix_s: float, secrets: Sequence[str]
) -> ProviderFailure:
    """The failure that a status other than 200 is."""
    kind = kind_of(status)
    words = message_in(body, secrets) or ("it redirects" if status // 100 == 3 else "no reason given")
    return ProviderFailure(
        kind,
        f"status {status}: {words}{request_id(header, secrets)}",
        sent=True,
        status=status,
        retry_after_s=retry_after_s(header, unix_s),
        body=scrub(body.decode(errors="replace"), secrets).encode()[:ERROR_BODY_BYTES_MAX],
    )


def invalid(
    why: str, header: Callable[[str], str], *, secrets: Sequence[str], status: int = 200, body: bytes = b""
) -> ProviderFailure:
    """The failure that an answer is which is not what the dialect promises."""
    words = message_in(body, secrets) if body else ""
    detail = f"{why}: {words}" if words else why
    return ProviderFailure(FailureKind.INVALID, f"{detail}{request_id(header, secrets)}", sent=True, status=status)


def request_id(header: Callable[[str], str], secrets: Sequence[str]) -> str:
    """The provider's own id of the request, for a ticket there; "" when it gave none."""
    said = header("x-request-id")
    return f" (x-request-id {tidy(said, secrets, REQUEST_ID_CHARS_MAX)})" if said else ""


def retry_after_s(header: Callable[[str], str], unix_s: float) -> float | None:
    """When to come back: milliseconds, seconds or an HTTP date, never negative, at most an hour. None = not said."""
    try:
        if said := header("retry-after-ms"):
            wait = float(said) / 1_000
        elif said := header("retry-after"):
            wait = float(said) if said.strip()[:1].isdigit() else _until(said, unix_s)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return min(max(wait, 0.0), RETRY_AFTER_S_MAX) if math.isfinite(wait) else None


def _until(date: str, unix_s: float) -> float:
    at = parsedate_to_datetime(date)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - unix_s


def message_in(body: bytes, secrets: Sequence[str]) -> str:
    """What the provider says is wrong, in at most 500 characters; "" when it says nothing readable."""
    try:
        said = msgspec.json.decode(body, type=_Wrapped)
    except (msgspec.DecodeError, RecursionError):  # not JSON, or of another shape: it is quoted as it is
        text = body[: 4 * MESSAGE_CHARS_MAX].decode(errors="replace")
        return tidy(text, secrets, MESSAGE_CHARS_MAX) if not text.lstrip().startswith(("{", "<")) else ""
    match said:
        case _Wrapped(error=_Said(message=message)) if message:
            text = message
        case _Wrapped(error=str(message)) | _Wrapped(message=str(message)) if message:
            text = message
        case _:
            text = bytes(said.detail).decode(errors="replace").strip('"')
    return tidy(text, secrets, MESSAGE_CHARS_MAX)


def tidy(text: str, secrets: Sequence[str], chars_max: int) -> str:
    """One line without secrets or control characters, cut to ``chars_max``. Scrubbed first: half a secret is one too."""
    clean = scrub(text, secrets).strip()
    cut = clean if len(clean) <= chars_max else clean[: chars_max - 1] + "…"
    return cut if cut.isprintable() else "".join(char if char.isprintable() else " " for char in cut)


def scrub(text: str, secrets: Sequence[str]) -> str:
    """``text`` with our credentials, and whatever looks like a credential, blotted out."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, BLOT)
    return _LOOKS_SECRET.sub(BLOT, text)

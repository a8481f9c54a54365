"""The safety net under every text that leaves by a log, a metric or a trace: what looks like a credential is blanked.

The rule is that no observation carries a secret. This is for the day when somebody breaks it, so it errs on the side of
blanking too much, and it knows shapes only: a password with no mark of one passes.
"""

from __future__ import annotations

import re

SCANNED_CHARS_MAX = 16_384
"""Longer texts are cut before they are scanned, at white space, so that no half of a credential stays."""

BLANK = "[redacted]"

_SHAPES = (
    r"-----BEGIN .*?(?:-----END [^\n-]{0,64}-----|\Z)",  # private keys and certificates, whole or cut off
    r"(?<![A-Za-z0-9])[sr]k[-_][A-Za-z0-9_\-]{6,}",  # service keys: ours, OpenAI's, Anthropic's, Stripe's
    r"eyJ[A-Za-z0-9_\-]{6,}[A-Za-z0-9_\-.]*",  # signed tokens
    r"(?<![A-Za-z0-9])(?:gh[opsur]_|github_pat_|glpat-|hf_|xox[a-z]-|gsk_|pplx-|npm_)[A-Za-z0-9_\-]{8,}",
    r"AKIA[0-9A-Z]{12,}|ASIA[0-9A-Z]{12,}|AIza[0-9A-Za-z_\-]{20,}",
    r"(?i:\bbearer[\s:=]+|\bbasic\s+)[^\s\"',;]{8,}",
    r"(?i:authorization|x-api-key|api-key|cookie)[\"']?\s{0,4}[:=]\s{0,4}[\"']?[^\s\"',;]{4,}(?:\s[^\s\"',;]{8,})?",
    r"(?i:password|passwd|pwd|passphrase|secret|api_?key|access_?token|refresh_?token)"
    r"(?:[\"']\s{0,4}:|\s{0,4}=)\s{0,4}[\"']?[^\s\"',;&]+",
    r"(?<=://)[^\s/\"'<>@]{0,256}:[^\s\"'<>]{0,512}@|(?<=://)[^\s/\"'<>@]{1,512}@",  # user:password in a URL
)
CREDENTIAL = re.compile("|".join(_SHAPES), re.DOTALL)

_HINTS = re.compile(
    r"-----B|[sr]k[-_]|eyJ|gh[opsur]_|github_|glpat-|hf_|xox|gsk_|pplx-|npm_|AKIA|ASIA|AIza|://"
    r"|[Bb][Ee][Aa][Rr]|[Bb][Aa][Ss][Ii][Cc]|[Aa][Uu][Tt][Hh][Oo]|[Kk][Ee][Yy]|[Cc][Oo][Oo][Kk]"
    r"|[Pp][Aa][Ss][Ss]|[Pp][Ww][Dd]|[Ss][Ee][Cc][Rr]|[Tt][Oo][Kk][Ee]"
)


_EXCHANGE_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PLAIN_MAX = 4_096
_PLAIN_CHARS_MAX = 64
_plain: set[str] = set()
"""Short texts that were scanned and hold nothing: names of tenants, use cases and models come again with every line."""


def redact(text: str) -> str:
    """``text`` without what looks like a credential, scanned whole."""
    if text in _plain:
        return text
    if len(text) == 36 and is_exchange_id(text):
        return text
    if _HINTS.search(text) is not None:
        return CREDENTIAL.sub(BLANK, text)
    if len(text) <= _PLAIN_CHARS_MAX:
        if len(_plain) >= _PLAIN_MAX:
            _plain.clear()
        _plain.add(text)
    return text


def is_exchange_id(text: str) -> bool:
    return _EXCHANGE_ID.fullmatch(text) is not None


def excerpt(text: str, chars_max: int, *, tail: bool = False) -> str:
    """At most ``chars_max`` characters of ``text``, redacted first: its begin, or its end (tracebacks say most there)."""
    cut = len(text) > SCANNED_CHARS_MAX
    if cut:
        text = text[-SCANNED_CHARS_MAX:] if tail else text[:SCANNED_CHARS_MAX]
        kept = text.split(maxsplit=1)[1:] if tail else text.rsplit(maxsplit=1)[:1]
        text = kept[0] if kept else ""
    text = redact(text)
    if len(text) > chars_max:
        return "…" + text[1 - chars_max :] if tail else text[: chars_max - 1] + "…"
    return text + "…" if cut and not tail else text

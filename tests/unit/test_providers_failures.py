"""What a provider's refusal becomes: bytes and headers in, a ProviderFailure out. No network."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipworthy.adapters.providers import failures
from shipworthy.model.errors import RETRY_ELSEWHERE, FailureKind, ProviderFailure

NOW_S = 1_800_000_000.0


def header(**said: str) -> Callable[[str], str]:
    return lambda name: said.get(name.replace("-", "_"), "")


def refused(status: int, body: bytes = b"", secrets: tuple[str, ...] = (), /, **headers: str) -> ProviderFailure:
    return failures.refused(status, header(**headers), body, unix_s=NOW_S, secrets=secrets)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.REJECTED),
        (413, FailureKind.REJECTED),
        (422, FailureKind.REJECTED),
        (401, FailureKind.UNAUTHORISED),
        (403, FailureKind.UNAUTHORISED),
        (404, FailureKind.INVALID),
        (408, FailureKind.SERVER_ERROR),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.SERVER_ERROR),
        (503, FailureKind.SERVER_ERROR),
        (599, FailureKind.SERVER_ERROR),
        (204, FailureKind.INVALID),
        (302, FailureKind.INVALID),
        (307, FailureKind.INVALID),
        (600, FailureKind.INVALID),
    ],
)
def test_each_status_has_one_meaning(status: int, kind: FailureKind) -> None:
    """A status is one failure kind, by one table."""
    failure = refused(status)
    assert (failure.kind, failure.status, failure.sent) == (kind, status, True)


def test_only_a_request_that_is_at_fault_itself_is_not_tried_elsewhere() -> None:
    """Our credential, our account or a missing model at one provider never blames the client."""
    stays = [status for status in range(300, 600) if failures.kind_of(status) not in RETRY_ELSEWHERE]
    assert stays
    assert all(400 <= status < 500 for status in stays)
    assert not {401, 402, 403, 404, 408, 409, 429} & set(stays)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry_after": "2"}, 2.0),
        ({"retry_after": " 1.5 "}, 1.5),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "1e9"}, 3_600.0),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "1e999"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": formatdate(NOW_S + 7, usegmt=True)}, 7.0),
        ({"retry_after": formatdate(NOW_S - 7, usegmt=True)}, 0.0),
        ({"retry_after": "Sun, 31 Feb 2027 25:61:00 GMT"}, None),
        ({"retry_after_ms": "250", "retry_after": "9"}, 0.25),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(headers: dict[str, str], wait_s: float | None) -> None:
    """A provider cannot close a circuit for ever, or for a negative time."""
    assert refused(429, **headers).retry_after_s == wait_s


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"message":"Too long.","type":"invalid_request_error","param":null,"code":"x"}}', "Too long."),
        (b'{"error":"model not loaded"}', "model not loaded"),
        (b'{"message":"nope"}', "nope"),
        (b'{"detail":"Not authenticated"}', "Not authenticated"),
        (b'{"detail":[{"loc":["body"],"msg":"field required"}]}', "field required"),
        (b"upstream connect error", "upstream connect error"),
        (b"<html><h1>502</h1></html>", "no reason given"),
        (b'{"error":{"message":["odd"]}}', "no reason given"),
        (b"", "no reason given"),
        (b"[" * 100_000, "["),
    ],
)
def test_the_providers_own_words_are_found(body: bytes, words: str) -> None:
    """The message is taken from any of the shapes that servers of this dialect use."""
    assert words in refused(400, body).detail


def test_words_are_bounded_to_one_printable_line() -> None:
    """An error body neither fills the log nor forges lines in it."""
    failure = refused(400, b'{"error":{"message":"' + b"a\\nb\\u001b[31m\\u2028" * 5_000 + b'"}}')
    assert len(failure.detail) < 700
    assert failure.detail.isprintable()
    assert len(refused(400, b"x" * 100_000).body) <= failures.ERROR_BODY_BYTES_MAX


def test_our_credentials_never_come_back() -> None:
    """A provider that echoes the key, plain or masked, does not put it into record, log or answer."""
    key = "corp-4f3a9c1e7d"
    body = (
        b'{"error":{"message":"Incorrect API key provided: %s, sk-proj-ab12****cd34, Bearer abcdef123"}}' % key.encode()
    )
    failure = refused(401, body, (key,), x_request_id=f"req_{key}")
    for place in (failure.detail, failure.body.decode(), str(failure)):
        assert key not in place
        assert "ab12" not in place
        assert "abcdef123" not in place
    assert failures.BLOT in failure.detail


def test_words_that_only_look_like_a_prefix_stay() -> None:
    """Scrubbing does not eat the error codes that an operator needs."""
    assert failures.scrub("the field api_key_invalid in sk-table is hf_missing", ()) == (
        "the field api_key_invalid in sk-table is hf_missing"
    )


def test_a_secret_cut_by_the_bound_is_still_found() -> None:
    """Bodies are scrubbed before they are cut: half a secret is one too."""
    key = "corp-4f3a9c1e7d"
    body = b"x" * (failures.ERROR_BODY_BYTES_MAX - 6) + key.encode() + b"y" * 10
    assert b"corp-4" not in refused(500, body, (key,)).body


def test_the_providers_request_id_is_kept() -> None:
    """With it a ticket can be opened at the provider."""
    assert "(x-request-id req_123)" in refused(500, x_request_id="req_123").detail
    assert len(refused(500, x_request_id="r" * 10_000).detail) < 300


@given(st.integers(100, 999), st.binary(max_size=400), st.text(max_size=60), st.text(max_size=60))
def test_whatever_comes_is_one_failure(status: int, body: bytes, wait: str, request: str) -> None:
    """No status, body or header raises anything else."""
    failure = refused(status, body, ("k3y",), retry_after=wait, x_request_id=request)
    assert failure.retry_after_s is None or 0 <= failure.retry_after_s <= failures.RETRY_AFTER_S_MAX
    assert failure.detail.isprintable()
    assert "k3y" not in failure.detail

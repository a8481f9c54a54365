"""The safety net: whatever looks like a credential is gone, wherever it stands and however the text was cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipworthy.adapters.telemetry.redaction import SCANNED_CHARS_MAX, excerpt, redact
from shipworthy.model.service_key import mint

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nBAQEFAASC\n-----END PRIVATE KEY-----"
SECRETS = {
    "openai": ("sk-proj-abcDEF123456_7890-xyz", "abcDEF123456"),
    "anthropic": ("sk-ant-api03-AbCdEfGhIjKl", "AbCdEfGh"),
    "stripe": ("sk_live_4eC39HqLyjWDarjtT1", "4eC39HqLyjWD"),
    "jwt": (JWT, "eyJzdWIiOiJhbGljZSJ9"),
    "jwt, cut off": (JWT[:30], "hbGciOiJSUzI1"),
    "bearer": ("Authorization: Bearer opaque-token-123", "opaque-token"),
    "bearer, small": ("bearer  0123456789abcdef", "0123456789"),
    "basic": ("Authorization: Basic YWxpY2U6aHVudGVyMg==", "YWxpY2U6"),
    "url": ("postgresql://shipworthy:hunter2@db.example/app", "hunter2"),
    "url, odd password": ("https://alice:p@ss/w0rd!@proxy.example:8080/", "w0rd"),
    "url, token alone": ("https://ghtoken123@git.example/x", "ghtoken123"),
    "conninfo": ("host=db user=app password=hunter2 dbname=x", "hunter2"),
    "json": ('{"client_secret": "hunter2", "x": 1}', "hunter2"),
    "header": ("x-api-key: hunter2hunter2", "hunter2"),
    "cookie": ("Cookie: session=abcdef123456", "abcdef123456"),
    "pem": (PEM, "MIIEvQIBADANBgkqhkiG9w0"),
    "pem, cut off": (PEM[:60], "MIIEvQIBADAN"),
    "pem, as repr": (repr(PEM), "MIIEvQIBADAN"),
    "github": ("ghp_0123456789abcdefghij0123456789abcdef", "0123456789"),
    "aws": ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
    "google": ("AIzaSyA-0123456789abcdefghijklmnopqrs", "SyA-0123"),
    "slack": ("xoxb-123456789012-abcdefghijkl", "123456789012"),
    "hugging face": ("hf_abcdefghijklmnopqrstuvwxyz", "abcdefghijklm"),
}


@pytest.mark.parametrize(("said", "secret"), SECRETS.values(), ids=SECRETS.keys())
@pytest.mark.parametrize("around", ["{}", "the provider said ({}) and left", "'{}'", "a\n{}\nb", "x={};y"])
def test_credentials_are_blanked_wherever_they_stand(said, secret, around):
    text = redact(around.format(said))
    assert secret not in text
    assert "[redacted]" in text


@pytest.mark.parametrize(
    "text",
    [
        "0193b2c4-7d1e-7c3a-9b1f-0123456789ab",
        "connect: connection refused by 10.0.0.5:8000",
        "boundary: regions [us] are not within [eu]",
        "risk-assessment-for-disk-storage is a use case",
        "https://login.example/keys answered 503",
        "the monthly budget of team=support does not cover this request",
        "identify.bad_signature: kid 7f3a is not published",
        "reserve.budget_exhausted screen.secret call.timeout",
    ],
)
def test_what_is_no_credential_stays_as_it_is(text):
    assert redact(text) == text


def test_our_own_service_keys_are_blanked():
    key = mint()
    assert key.secret not in redact(f"the key {key.reveal()} was sent")


@given(before=st.text(max_size=200), after=st.text(max_size=200))
def test_no_surroundings_save_a_service_key(before, after):
    """Whatever stands around it, the secret half never passes."""
    secret = "0123456789abcdef-qrstuvwxyzqrstuvwxyz"
    assert secret not in redact(f"{before} sk-{secret}{after}")


@given(st.integers(0, 40), st.integers(5, 400), st.booleans())
def test_no_cut_leaves_half_a_credential(shift, chars_max, tail):
    """Long texts are cut before they are scanned; no place of the cut shows a part of what stands there."""
    secret = "sk-" + "q7" * 20
    for padding in (SCANNED_CHARS_MAX - shift, 100):
        text = " ".join(["." * padding, secret, "." * padding])
        assert "q7q7" not in excerpt(text, chars_max, tail=tail)


@pytest.mark.parametrize(
    "text",
    ["://" * 100_000, "Bearer " * 100_000, "password=" * 50_000, "eyJ" * 100_000, "-----BEGIN " * 30_000, "sk-" * 100_000,
     "a" * 1_000_000, "authorization:" * 30_000, "key " * 100_000],
    ids=["url", "bearer", "password", "jwt", "pem", "key", "letters", "header", "hints"],
)  # fmt: skip
def test_no_text_makes_the_scan_slow(text):
    began = time.perf_counter()
    assert len(excerpt(text, 2_000)) <= 2_000
    assert time.perf_counter() - began < 0.5

"""What a manifest may say about a provider over HTTP, and what reaches the wire of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from shipworthy.adapters.providers import llama_cpp, openai, openai_compatible
from shipworthy.kit import scripted
from shipworthy.kit.calls import a_chat, a_model, a_provider, decoded, fitted
from shipworthy.manifest.reference import Resolver
from shipworthy.manifest.specs import Spec, by_kind
from shipworthy.model.errors import FailureKind, ProviderFailure, StartRefused
from shipworthy.model.route import Network
from shipworthy.ports import Upstream

ENVIRON = {
    "OPENAI_API_KEY": "sk-test-123456789",
    "EXTRA": "value-9",
    "BAD": "two\nlines",
    "PROXY": "http://u:p@proxy:1",
}
SPECS: tuple[Spec[Upstream], ...] = (openai.SPEC, openai_compatible.SPEC, llama_cpp.SPEC, scripted.SPEC)


def compatible(**said: object) -> openai_compatible.CompatibleConfig:
    fields = {"base_url": "http://10.0.0.5:8000/v1", **said}
    return openai_compatible.CompatibleConfig.model_validate(fields, context=Resolver(Path("/m"), ENVIRON))


def test_every_kind_has_one_spec() -> None:
    """No two adapters claim a kind; those that stay on this machine say so when the manifest does not."""
    kinds = by_kind(SPECS)
    assert set(kinds) == {"openai", "openai-compatible", "llama-cpp", "scripted"}
    for kind, spec in kinds.items():
        local = spec.boundary is not None and spec.boundary.network is Network.LOCAL
        assert local is (kind in ("llama-cpp", "scripted"))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_unknown_keys_are_refused(spec: Spec[Upstream]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        spec.Config.model_validate({"tempreture": 1}, context=Resolver(Path("/m"), ENVIRON))


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.5:8000/v1",
        "ftp://host/v1",
        "http://",
        "http://user:pass@host/v1",
        "http://host/v1?key=abc",
        "http://host/v1#x",
        "",
        7,
    ],
)
def test_addresses_that_are_none_are_refused(address: object) -> None:
    with pytest.raises(ValidationError):
        compatible(base_url=address)


@pytest.mark.parametrize("name", ["Host", "content-length", "Cookie", "traceparent", "a b", "x:y", "", "é", "x\r\ny"])
def test_headers_that_are_ours_or_none_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        compatible(headers={name: {"env": "EXTRA"}})


def test_values_of_headers_never_stand_in_the_manifest() -> None:
    """And are in no repr, dump or error of it."""
    with pytest.raises(ValidationError) as raised:
        compatible(headers={"x-team": "value-literal"})
    assert "value-literal" not in str(raised.value)
    settings = compatible(
        headers={"X-Team": {"env": "EXTRA"}}, proxy={"env": "PROXY"}, credentials={"env": "OPENAI_API_KEY"}
    )
    for printed in (repr(settings), str(settings), settings.model_dump_json()):
        assert not any(secret in printed for secret in ENVIRON.values())


def test_secrets_become_headers_and_are_known_for_scrubbing() -> None:
    settings = compatible(
        headers={"X-Team": {"env": "EXTRA"}}, credentials={"env": "OPENAI_API_KEY"}, proxy={"env": "PROXY"}
    )
    endpoint = settings.endpoint(settings.base_url, settings.credentials, a_provider("x", None).timeouts)
    assert endpoint.headers == {"x-team": "value-9", "authorization": "Bearer sk-test-123456789"}
    assert endpoint.proxy == "http://u:p@proxy:1"
    assert set(settings.secrets(settings.credentials)) == {"sk-test-123456789", "value-9", "http://u:p@proxy:1"}
    assert "sk-test" not in repr(endpoint)


def test_a_secret_that_no_header_can_carry_stops_the_start() -> None:
    """A key pasted with a line break fails here, by name, and is not quoted."""
    settings = compatible(credentials={"env": "BAD"})
    with pytest.raises(StartRefused, match=r"credentials \(Secret\(env BAD\)\)") as raised:
        openai_compatible.build(a_provider("x", settings))
    assert "two" not in str(raised.value)


def test_openai_has_its_own_defaults() -> None:
    settings = openai.OpenAIConfig.model_validate(
        {"credentials": {"env": "OPENAI_API_KEY"}}, context=Resolver(Path("/m"), ENVIRON)
    )
    assert (settings.base_url, settings.output_cap_field) == ("https://api.openai.com/v1", "max_completion_tokens")
    with pytest.raises(ValidationError, match="credentials"):
        openai.OpenAIConfig.model_validate({}, context=Resolver(Path("/m"), ENVIRON))


# ------------------------------------------------------------------------------------------- encode, on bytes


def encoded(request_fields: dict[str, object], **settings: object) -> bytes:
    provider = a_provider("x", compatible(**settings))
    request = a_chat("hi", **request_fields)
    return openai_compatible.build(provider).encode(a_model(provider), request, fitted(request))


def test_the_bytes_that_are_sent() -> None:
    """Model, cap and usage are laid over the client's body; everything else keeps its place."""
    messages = b'"messages":[{"role":"user","content":"hi"}]'
    assert encoded({}) == b'{"model":"upstream-1",' + messages + b',"max_tokens":1000}'
    assert encoded({"stream": True}) == (
        b'{"model":"upstream-1",'
        + messages
        + b',"stream":true,"max_tokens":1000,"stream_options":{"include_usage":true}}'
    )
    assert encoded({"stream": True, "max_completion_tokens": 5}, ask_usage=False) == (
        b'{"model":"upstream-1",' + messages + b',"stream":true,"max_completion_tokens":5}'
    )
    assert encoded({}, output_cap_field="max_completion_tokens").endswith(b'"max_completion_tokens":1000}')


@pytest.mark.parametrize(
    ("own", "sent"),
    [
        ({}, b'["\\n"]'),
        ({"stop": None}, b'["\\n"]'),
        ({"stop": "END"}, b'["END","\\n"]'),
        ({"stop": ["\n"]}, b'["\\n"]'),
        ({"stop": 7}, b"7"),
    ],
)
def test_the_local_models_stop_is_added(own: dict[str, object], sent: bytes) -> None:
    provider = a_provider("llama-cpp", llama_cpp.LlamaCppConfig())
    upstream = llama_cpp.build(provider, base_url="http://127.0.0.1:1/v1", api_key="k", default_stop=("\n",))
    request = a_chat("hi", **own)
    assert b'"stop":' + sent in upstream.encode(a_model(provider), request, fitted(request))


def test_the_local_model_refuses_what_it_cannot_see() -> None:
    provider = a_provider("llama-cpp", llama_cpp.LlamaCppConfig())
    upstream = llama_cpp.build(provider, base_url="http://127.0.0.1:1/v1", api_key="k")
    picture = [{"type": "image_url", "image_url": {"url": "https://docs.example/a.png"}}]
    request = decoded({"model": "s", "messages": [{"role": "user", "content": picture}]})
    with pytest.raises(ProviderFailure) as raised:
        upstream.encode(a_model(provider), request, fitted(request))
    assert (raised.value.kind, raised.value.sent) == (FailureKind.REJECTED, False)

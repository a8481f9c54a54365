"""Kind ``openai``: OpenAI's own API. Credentials are required; the address may be overridden for a mirror or a test."""

from __future__ import annotations

from pydantic import Field

from shipworthy.adapters.providers.settings import HttpConfig, OutputCapField, Url
from shipworthy.adapters.providers.upstream import HttpUpstream
from shipworthy.manifest.specs import Secret, Spec
from shipworthy.model.route import Provider

BASE_URL = "https://api.openai.com/v1"
KEEPALIVE_MS = 60_000


class OpenAIConfig(HttpConfig):
    """The settings of ``kind: openai``."""

    credentials: Secret
    base_url: Url = BASE_URL
    output_cap_field: OutputCapField = "max_completion_tokens"  # all its models know it, reasoning models nothing else
    keepalive_ms: int = Field(default=KEEPALIVE_MS, ge=0, le=600_000)


def build(provider: Provider) -> HttpUpstream:
    settings = provider.settings
    assert isinstance(settings, OpenAIConfig)
    endpoint = settings.endpoint(settings.base_url, settings.credentials, provider.timeouts)
    return HttpUpstream(endpoint, settings, secrets=settings.secrets(settings.credentials))


SPEC = Spec("openai", OpenAIConfig, build)

"""Kind ``openai-compatible``: whatever speaks OpenAI's dialect at an address: vLLM, Ollama, LM Studio …"""

from __future__ import annotations

from shipworthy.adapters.providers.settings import HttpConfig, Url
from shipworthy.adapters.providers.upstream import HttpUpstream
from shipworthy.manifest.specs import Secret, Spec
from shipworthy.model.route import Provider


class CompatibleConfig(HttpConfig):
    """The settings of ``kind: openai-compatible``."""

    base_url: Url
    credentials: Secret | None = None


def build(provider: Provider) -> HttpUpstream:
    settings = provider.settings
    assert isinstance(settings, CompatibleConfig)
    endpoint = settings.endpoint(settings.base_url, settings.credentials, provider.timeouts)
    return HttpUpstream(endpoint, settings, secrets=settings.secrets(settings.credentials))


SPEC = Spec("openai-compatible", CompatibleConfig, build)

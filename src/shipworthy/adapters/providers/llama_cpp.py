"""Kind ``llama-cpp``: a GGUF model on this machine, in a child process that bootstrap starts and supervises.

Only its loopback endpoint is known here: address and key exist once the child runs, so they arrive at build time.
"""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace
from pydantic import Field

from shipworthy.adapters.providers.settings import HttpConfig
from shipworthy.adapters.providers.upstream import HttpUpstream
from shipworthy.manifest.specs import Beside, Config, Secret, Spec
from shipworthy.model.route import Boundary, Network, Provider


class LlamaCppConfig(Config):
    """The settings of ``kind: llama-cpp``, for the child; bounds are the child's."""

    path: Beside | None = None  # a GGUF file; None: the small base model that the extra `local` brings
    framing: Literal["auto", "chat", "few-shot"] = "auto"
    context_tokens: int = Field(default=4_096, ge=256, le=1_048_576)  # of one request
    threads: int = Field(default=0, ge=0, le=512)  # 0: as many as the machine gives
    parallel: int = Field(default=2, ge=1, le=64)  # requests answered at once
    embeddings: bool = False  # serve embeddings too
    share_prefixes: bool = False  # faster, and tells callers of each other's prompts: only for a single tenant


def build(provider: Provider, *, base_url: str, api_key: str, default_stop: tuple[str, ...] = ()) -> HttpUpstream:
    """``default_stop`` goes with every chat: it ends an answer where a base model would go on talking to itself."""
    assert isinstance(provider.settings, LlamaCppConfig)
    settings = HttpConfig(keepalive_ms=0)  # the child closes every connection after its answer
    key = Secret(api_key, "the child's key")
    endpoint = settings.endpoint(base_url, key, provider.timeouts)
    return HttpUpstream(
        replace(endpoint, idle_ms_max=provider.timeouts.total_ms),  # a busy machine may pause for long: total bounds it
        settings,
        secrets=settings.secrets(key),
        default_stop=default_stop,
        images=False,
    )


BOUNDARY = Boundary(network=Network.LOCAL, trains_on_data=False, retention_days=0)
TEMPLATE_TOKENS = 192  # the worked examples of the few-shot framing are about 139
SPEC = Spec("llama-cpp", LlamaCppConfig, build, BOUNDARY, TEMPLATE_TOKENS)

"""The built-in adapters, one line each. A third party's is loaded only if the manifest names its package."""

from __future__ import annotations

from shipworthy.adapters.providers import llama_cpp, openai, openai_compatible
from shipworthy.kit import scripted
from shipworthy.manifest.specs import Spec, by_kind
from shipworthy.ports import Upstream

PROVIDERS: dict[str, Spec[Upstream]] = by_kind(
    (
        openai.SPEC,
        openai_compatible.SPEC,
        llama_cpp.SPEC,
        scripted.SPEC,
    )
)

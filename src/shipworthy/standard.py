"""The built-in adapters, one line each. A third party's is loaded only if the manifest names its package."""

from __future__ import annotations

from pathlib import Path

from shipworthy.adapters.policy.cel import compile_condition
from shipworthy.adapters.prices.table import price_of
from shipworthy.adapters.providers import llama_cpp, openai, openai_compatible
from shipworthy.kit import scripted
from shipworthy.manifest.files import Texts
from shipworthy.manifest.load import Loaded, load
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


def read_manifest(path: Path, *, require_references: bool = True, given: Texts | None = None) -> Loaded:
    """The manifest at ``path`` with the built-in adapters, ``given`` what its files held. Raises ManifestRefused."""
    return load(path, None, PROVIDERS, compile_condition, price_of, require_references=require_references, given=given)

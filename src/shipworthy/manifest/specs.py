"""What an adapter tells about itself, so that a manifest can name it: ``Spec(kind, Config, build)``.

An adapter subclasses ``Config`` with its own settings keys: those that stand beside ``kind``, ``boundary``, ``timeouts``
and ``concurrent_max`` under ``providers.NAME``. ``manifest/load`` validates them, with ``Secret`` fields already resolved,
and the linked ``Provider.settings`` is an instance of that class. ``bootstrap`` calls ``build``. A field ``base_url`` tells
the price table whose API it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from shipworthy.manifest.reference import Beside, Referable, Secret
from shipworthy.model.route import Boundary

__all__ = ["Beside", "Config", "Referable", "Secret", "Spec", "by_kind"]

Built_co = TypeVar("Built_co", covariant=True)


class Config(BaseModel):
    """The settings of one kind of provider. Unknown keys are problems; values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


@dataclass(frozen=True, slots=True)
class Spec(Generic[Built_co]):
    """One kind of provider.

    ``boundary`` is what the kind promises by its nature when the manifest states nothing (a child process on this machine:
    local network, no training, no retention); None = only what the manifest states counts. ``concurrent_max`` is the bound
    on requests at once unless the manifest states one.
    """

    kind: str
    Config: type[Config]
    build: Callable[..., Built_co]
    boundary: Boundary | None = None
    template_tokens: int = 0
    concurrent_max: int = 128


def by_kind(specs: Iterable[Spec[Built_co]]) -> dict[str, Spec[Built_co]]:
    """``specs`` by kind. A duplicate kind stops the start: ValueError."""
    found: dict[str, Spec[Built_co]] = {}
    for spec in specs:
        if spec.kind in found:
            raise ValueError(f"two adapters say that they are of kind {spec.kind}")
        found[spec.kind] = spec
    return found

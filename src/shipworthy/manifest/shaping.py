"""Tree → ``Manifest``, with every problem of its shape at once.

Link should find its problems in the same run, so what is wrong is taken out of the tree and the rest is shaped again, a
bounded number of times; names that fell out this way are still known to have been declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shipworthy.manifest.problem import KeyPath, did_you_mean, one_of
from shipworthy.manifest.reference import Resolver
from shipworthy.manifest.shape import Manifest
from shipworthy.manifest.shape_models import ProviderShape
from shipworthy.manifest.shaping_words import explain
from shipworthy.manifest.specs import Config, Spec
from shipworthy.manifest.tree import Tree, Value

ROUNDS_MAX = 8

_STAND_INS: dict[str, Value] = {
    "shipworthy": 1, "name": "unnamed", "environment": "unnamed", "identity": {}, "job": "unstated", "owner": "unstated",
    "usd": 0, "per": "month", "upstream": "unstated", "audience": ["unstated"], "id": "unstated", "when": "true",
    "input_usd_per_mtok": 0, "groups": ["unstated"],
}  # fmt: skip
"""Required keys that stand for themselves: when one is missing or wrong, what is around it can still be linked."""


@dataclass(slots=True)
class Shaped:
    """What could be shaped. ``manifest`` is None when too little is left to link."""

    manifest: Manifest | None
    settings: dict[str, Config] = field(default_factory=dict)
    declared: dict[KeyPath, frozenset[str]] = field(default_factory=dict)

    def names(self, path: KeyPath) -> frozenset[str]:
        """Every name that the file declares under ``path``, the broken ones too."""
        return self.declared.get(path, frozenset())


def shape(tree: Tree, specs: Mapping[str, Spec[object]], resolver: Resolver) -> Shaped:
    """The manifest in ``tree``; what is wrong is reported there and taken out."""
    shaped = Shaped(None, declared=_declared(tree.value))
    broken: list[KeyPath] = []
    for attempt in range(ROUNDS_MAX):
        try:
            shaped.manifest = Manifest.model_validate(tree.value, context=resolver)
            break
        except ValidationError as bad:
            errors = bad.errors(include_url=False, include_input=False)
        places = [(_path(tree, error), error) for error in errors]
        if attempt == 0:
            for path, error in places:
                explain(tree, path, error)
                broken.append(tree.mark(path).path)
        if not _take_out(tree, places):
            return shaped
    if shaped.manifest is not None:
        for name, provider in list(shaped.manifest.providers.items()):
            _settings(shaped, name, provider, tree, specs, resolver)
    tree.broken += broken
    return shaped


def _declared(value: Value, path: KeyPath = ()) -> dict[KeyPath, frozenset[str]]:
    found: dict[KeyPath, frozenset[str]] = {}
    if isinstance(value, dict) and len(path) < 4:
        found[path] = frozenset(value)
        for key, below in value.items():
            found |= _declared(below, (*path, key))
    return found


def _take_out(tree: Tree, places: list[tuple[KeyPath, ErrorDetails]]) -> bool:
    """Takes out what is wrong; False when nothing sensible would be left."""
    drops: set[KeyPath] = set()
    stand_ins: set[KeyPath] = set()
    for path, error in places:
        if error["type"] != "missing":
            drops.add(path)
        elif path[-1] in _STAND_INS:
            stand_ins.add(path)
        else:
            drops.add(path[:-1])
    for path in stand_ins:
        parent = tree.at(path[:-1])
        if isinstance(parent, dict):
            parent[str(path[-1])] = _STAND_INS[str(path[-1])]
    for path in sorted(drops, key=lambda path: [(isinstance(key, int), key) for key in path], reverse=True):
        if not path or path == ("requirements", "data_classes") or tree.at(path[:-1]) is None:
            return False
        tree.drop(path)
    return True


def _path(tree: Tree, error: ErrorDetails) -> KeyPath:
    """Where the error is in the file: pydantic's location without what only its schema knows."""
    here: Value = tree.value
    path: list[str | int] = []
    last = len(error["loc"]) - 1
    for position, key in enumerate(error["loc"]):
        absent = position == last and error["type"] == "missing"
        if isinstance(here, dict) and isinstance(key, str) and (key in here or absent):
            here = here.get(key)
        elif isinstance(here, list) and isinstance(key, int) and key < len(here):
            here = here[key]
        else:
            continue
        path.append(key)
    return tuple(path)


def _settings(
    shaped: Shaped,
    name: str,
    provider: ProviderShape,
    tree: Tree,
    specs: Mapping[str, Spec[object]],
    resolver: Resolver,
) -> None:
    """Reads what stands beside a provider's common keys by the ``Config`` of its kind."""
    here: KeyPath = ("providers", name)
    spec = specs.get(provider.kind)
    if spec is None:
        hint = did_you_mean(provider.kind, specs)
        tree.report((*here, "kind"), "no adapter is of this kind", wanted=one_of(specs), hint=hint)
        return
    stated = provider.model_extra or {}
    try:
        shaped.settings[name] = spec.Config.model_validate(stated, context=resolver)
    except ValidationError as bad:
        for error in bad.errors(include_url=False, include_input=False):
            placed = ErrorDetails(**{**error, "loc": (*here, *error["loc"])})
            explain(tree, _path(tree, placed), placed, spec.Config)

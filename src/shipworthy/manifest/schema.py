"""The manifest's keys for machines: JSON Schema for editors, and the flat list that the reference is checked against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic.json_schema import JsonSchemaValue

from shipworthy.manifest.shape import Manifest
from shipworthy.manifest.shape_models import ProviderShape
from shipworthy.manifest.shaping_words import keys_at
from shipworthy.manifest.specs import Spec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(specs: Mapping[str, Spec[object]]) -> JsonSchemaValue:
    """The manifest as JSON Schema (2020-12), with every kind of provider that ``specs`` know."""
    schema = Manifest.model_json_schema()
    definitions = schema["$defs"]
    common = definitions.pop(ProviderShape.__name__)
    kinds = []
    for kind, spec in sorted(specs.items()):
        own = spec.Config.model_json_schema(ref_template=f"#/$defs/{kind}.{{model}}")
        definitions |= {f"{kind}.{name}": shape for name, shape in own.pop("$defs", {}).items()}
        definitions[kind] = {
            "type": "object",
            "description": spec.Config.__doc__ or kind,
            "properties": common["properties"] | own.get("properties", {}) | {"kind": {"const": kind}},
            "required": ["kind", *own.get("required", [])],
            "additionalProperties": False,
        }
        kinds.append({"$ref": f"#/$defs/{kind}"})
    definitions[ProviderShape.__name__] = {"oneOf": kinds}
    whole = {"$schema": DIALECT, "title": "shipworthy.yaml"} | {key: schema[key] for key in schema if key != "title"}
    return {key: _standard(value) for key, value in whole.items()}


_STANDARD_WORDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
"""pydantic keeps its own words for the bounds of a number that a validator reads first."""


def _standard(node: object) -> object:
    if isinstance(node, list):
        return [_standard(item) for item in node]
    if not isinstance(node, dict):
        return node
    number = not {"properties", "$defs"} & node.keys() and bool(_STANDARD_WORDS.keys() & node.keys())
    return {_STANDARD_WORDS.get(key, key) if number else key: _standard(value) for key, value in node.items()}


def all_keys() -> list[str]:
    """Every key of the contract, dotted, with NAME for what the firm names and [] for list items."""
    return list(_below((), ()))


def _below(path: tuple[str | int, ...], shown: tuple[str, ...]) -> Iterator[str]:
    named, listed = list(keys_at((*path, "NAME"))), list(keys_at((*path, 0)))
    own = list(keys_at(path))
    if own:
        for key in own:
            yield ".".join((*shown, key))
            yield from _below((*path, key), (*shown, key))
    elif named:
        yield from _below((*path, "NAME"), (*shown, "NAME"))
    elif listed:
        yield from _below((*path, 0), (*shown[:-1], f"{shown[-1]}[]"))

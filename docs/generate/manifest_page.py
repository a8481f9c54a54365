"""manifest.md: every key of the manifest, with its type, its default, and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from manifest_words import KINDS, WORDS
from markdown import code, paragraphs, prose, table

from shipworthy.manifest.reference import REFERENCE_SCHEMA
from shipworthy.manifest.schema import json_schema
from shipworthy.manifest.shape_models import ProviderShape
from shipworthy.manifest.shape_values import ALIAS_PATTERN, CLASS_PATTERN, DECIMAL_PATTERN, NAME_PATTERN, NOT_AVAILABLE
from shipworthy.standard import PROVIDERS

Schema = dict[str, Any]  # JSON Schema, as pydantic prints it

PATTERNS = {NAME_PATTERN: "name", ALIAS_PATTERN: "model name", CLASS_PATTERN: "class name", DECIMAL_PATTERN: "decimal"}

INTRO = f"""
# The manifest

`shipworthy.yaml` says what the deployment must be. Its keys are a contract; unknown keys are problems. `shipworthy check` reports
every problem at once, with file, line, what was said, what was wanted, and a hint; `shipworthy check --schema` prints the JSON
Schema for editors. `shipworthy init` writes a first one.

- **required** keys have no default; all others may be left out. `key:` with nothing after it is left out too.
- NAME is a name of yours: letters, digits, `.`, `_` or `-`, at most 63. `[]` is an entry of a list.
- Secrets stand in no manifest: `{{env: NAME}}` is a variable of the environment, `{{file: PATH}}` a file. Paths are relative to the
  manifest's folder.
- Money is exact: up to nine decimals of a USD; nothing is rounded on its way in.
- *{NOT_AVAILABLE}*: the key is known, and refused until what it asks for exists.

A running server reads the manifest again on SIGHUP and when one of its files changes. A bad one changes nothing: the last good
one stays in force and `/readyz` says `degraded`. `server`'s bind and workers, `admin`, `store`, `keys` and `telemetry` need a restart.
"""


class Line(NamedTuple):
    key: str
    type: str
    default: str
    meaning: str


def page() -> str:
    schema = json_schema(PROVIDERS)
    parts = [INTRO]
    lines = [*_lines(schema, schema, "Manifest", "")]
    tops = list(schema["properties"])
    plain = [name for name in tops if not any(line.key.startswith(f"{name}.") for line in lines)]
    parts += ["## The head", _table([line for line in lines if line.key in plain])]
    for name in tops:
        if name not in plain:
            parts += [
                f"## {name}",
                _table([line for line in lines if line.key == name or line.key.startswith(f"{name}.")]),
            ]
        if name == "providers":
            parts += [_kind(schema, kind) for kind in sorted(PROVIDERS)]
    return paragraphs(*parts)


def _table(lines: list[Line]) -> str:
    return table(
        ("key", "type", "default", "meaning"),
        [(code(line.key), line.type, line.default, line.meaning) for line in lines],
    )


def _kind(root: Schema, kind: str) -> str:
    definition = root["$defs"][kind]
    common = set(ProviderShape.model_fields)
    own = {key: value for key, value in definition["properties"].items() if key not in common}
    lines = list(_lines(root, {"properties": own, "required": definition["required"]}, "", f"{kind}: "))
    shown = [line._replace(key=line.key.removeprefix(f"{kind}: ")) for line in lines]
    module = PROVIDERS[kind].build.__module__
    said = prose((__import__(module, fromlist=["_"]).__doc__ or "").split("\n\n")[0].partition(": ")[2])
    return paragraphs(f"### kind: {kind}", said[:1].upper() + said[1:], _table(shown) if shown else "")


def _lines(root: Schema, schema: Schema, shape: str, prefix: str) -> Iterator[Line]:
    required = schema.get("required", ())
    for name, said in schema["properties"].items():
        key = f"{prefix}{name}"
        default = "**required**" if name in required else _default(root, said)
        yield Line(key, _type(root, said), default, _meaning(shape, name, key, said))
        yield from _below(root, said, key)


def _meaning(shape: str, name: str, key: str, said: Schema) -> str:
    words = WORDS[f"{shape}.{name}"] if shape in _SHAPES else KINDS[key.partition(": ")[2]]
    return f"{words}. *{NOT_AVAILABLE}*" if _unbuilt(said) else words


_SHAPES = {key.partition(".")[0] for key in WORDS}


def _unbuilt(said: Schema) -> bool:
    return bool(said.get("deprecated")) or any(each.get("deprecated") for each in said.get("anyOf", ()))


def _below(root: Schema, said: Schema, key: str) -> Iterator[Line]:
    """The keys within what stands at ``key``."""
    for each in _alternatives(said):
        if "$ref" in each:
            name = each["$ref"].rpartition("/")[2]
            definition = root["$defs"][name]
            if "properties" in definition:
                yield from _lines(root, definition, name, f"{key}.")
            elif name == ProviderShape.__name__:
                yield from _common(root, key)
        for inner in each.get("patternProperties", {}).values():
            yield from _below(root, inner, f"{key}.NAME")
        if "items" in each:
            yield from _below(root, each["items"], f"{key}[]")


def _common(root: Schema, key: str) -> Iterator[Line]:
    """The keys that every kind of provider has."""
    definition = root["$defs"][next(iter(PROVIDERS))]
    shared = {name: definition["properties"][name] for name in ProviderShape.model_fields}
    shared["kind"] = {"enum": sorted(PROVIDERS)}
    yield from _lines(root, {"properties": shared, "required": ["kind"]}, ProviderShape.__name__, f"{key}.")


def _alternatives(said: Schema) -> list[Schema]:
    if "anyOf" in said:
        return [found for each in said["anyOf"] for found in _alternatives(each) if each.get("type") != "null"]
    return [said]


def _default(root: Schema, said: Schema) -> str:
    value = said.get("default")
    if value is None or value in ({}, [], ()) or (isinstance(value, dict) and _is_shape(root, said)):
        return ""
    return code(value if isinstance(value, str) else json.dumps(value))


def _is_shape(root: Schema, said: Schema) -> bool:
    return any("$ref" in each for each in _alternatives(said))


def _type(root: Schema, said: Schema) -> str:
    words = list(dict.fromkeys(_one_type(root, each) for each in _alternatives(said)))
    if "decimal" in words:
        return "amount"
    return " or ".join(words)


def _one_type(root: Schema, said: Schema) -> str:
    if "const" in said:
        return code(said["const"])
    if "enum" in said:
        return ", ".join(code(value) for value in said["enum"])
    if said.get("oneOf") == REFERENCE_SCHEMA["oneOf"]:
        return "reference"
    if "$ref" in said:
        return "mapping"
    kind = said.get("type", "")
    if kind == "array":
        return f"list of {_type(root, said['items'])}"
    if kind == "object":
        inner = next(iter(said.get("patternProperties", {}).values()), said.get("additionalProperties"))
        return f"NAME: {_type(root, inner)}" if isinstance(inner, dict) else "`{file: PATH}`"
    if kind == "boolean":
        return "true, false"
    if kind == "string":
        return "date" if said.get("format") == "date" else PATTERNS.get(said.get("pattern", ""), "text")
    return _bounded("whole number" if kind == "integer" else kind, said)


def _bounded(kind: str, said: Schema) -> str:
    low, high = said.get("minimum", said.get("exclusiveMinimum")), said.get("maximum")
    return (
        kind if low is None or high is None or "usd" in said.get("title", "").lower() else f"{kind} {low:,} to {high:,}"
    )

"""pydantic's errors in the manifest's words: what is wrong, what was wanted, what to do."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from shipworthy.manifest.problem import KeyPath, did_you_mean, one_of, quoted
from shipworthy.manifest.shape import Manifest
from shipworthy.manifest.shape_models import ProviderShape
from shipworthy.manifest.shape_values import ALIAS_PATTERN, CLASS_PATTERN, NAME_PATTERN
from shipworthy.manifest.tree import Tree

_PATTERNS = {
    NAME_PATTERN: "a name: letters, digits, '.', '_' or '-', at most 63, beginning with a letter or digit",
    ALIAS_PATTERN: "a model's name: letters, digits and . _ : / @ + -, at most 128",
    CLASS_PATTERN: "a class's name: letters, digits or _, at most 32, beginning with a letter",
}

_TYPES = {
    "int_type": ("not a whole number", "a whole number"),
    "float_type": ("not a number", "a number"),
    "bool_type": ("not true or false", "true or false"),
    "string_type": ("not text", "text"),
    "list_type": ("not a list", "a list: [a, b]"),
    "dict_type": ("not a mapping", "a mapping of keys"),
    "model_type": ("not a mapping", "a mapping of keys"),
    "model_attributes_type": ("not a mapping", "a mapping of keys"),
    "none_required": ("not nothing", "nothing"),
}

_BOUNDS = {
    "greater_than_equal": ("too small", "at least {ge}"),
    "greater_than": ("too small", "more than {gt}"),
    "less_than_equal": ("too large", "at most {le}"),
    "less_than": ("too large", "less than {lt}"),
    "string_too_short": ("too short", "at least {min_length} characters"),
    "string_too_long": ("too long", "at most {max_length} characters"),
    "too_short": ("too few", "at least {min_length}"),
    "too_long": ("too many", "at most {max_length}"),
}

_ELSEWHERE = {
    "api_key": "credentials", "key": "credentials", "token": "credentials", "url": "base_url", "api_base": "base_url",
    "model": "upstream", "name": "upstream", "model_name": "upstream", "max_tokens": "output_max",
    "deployments": "providers", "users": "tenants", "apps": "use_cases", "projects": "use_cases", "model_list": "models",
    "rpm": "requests_per_min", "tpm": "tokens_per_min", "amount": "usd", "limit": "usd", "period": "per",
    "timezone": "zone", "tz": "zone", "fallbacks": "models", "condition": "when", "if": "when", "env": "environment",
}  # fmt: skip
"""What other products call a key, so that a newcomer is told our word."""


def explain(tree: Tree, path: KeyPath, error: ErrorDetails, config: type[BaseModel] | None = None) -> None:
    """Reports one error at ``path``. ``config`` is the settings class when the error is in a provider's own settings."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        tree.report(
            path, f"the key {path[-1]} is missing", said="", wanted=f"{path[-1]}: …", hint="it is required here"
        )
    elif kind == "extra_forbidden":
        _unknown_key(tree, path, config)
    elif kind == "literal_error":
        _not_one_of(tree, path, context)
    elif "wanted" in context:
        said = context.get("said")
        tree.report(path, error["msg"], said=said, wanted=context["wanted"], hint=context.get("hint", ""))
    elif kind == "string_pattern_mismatch":
        said = quoted(path[-1]) if error["loc"][-1] == "[key]" else None
        wanted = _PATTERNS.get(context.get("pattern", ""), f"text that matches {context.get('pattern')}")
        tree.report(path, "not well-formed", said=said, wanted=wanted)
    elif kind in _BOUNDS:
        what, wanted = _BOUNDS[kind]
        tree.report(path, what, wanted=wanted.format_map(context), said=_measured(tree, path, kind))
    else:
        what, wanted = _TYPES.get(kind, (error["msg"].removeprefix("Value error, "), "another value"))
        tree.report(path, what, wanted=wanted, hint=_type_hint(tree, path, kind))


def _measured(tree: Tree, path: KeyPath, kind: str) -> str | None:
    value = tree.at(path)
    if kind.startswith("string_too") and isinstance(value, str):
        return f"{len(value)} characters"
    return None


def _type_hint(tree: Tree, path: KeyPath, kind: str) -> str:
    value = tree.at(path)
    if kind == "string_type" and not isinstance(value, dict | list | None):
        return f'quote it: "{str(value).lower() if isinstance(value, bool) else value}"'
    if kind in ("int_type", "float_type") and isinstance(value, str) and any(char.isdigit() for char in value):
        return "write it without quotes, and digits without _ or ,"
    return ""


def _unknown_key(tree: Tree, path: KeyPath, config: type[BaseModel] | None) -> None:
    said = str(path[-1])
    known = list(keys_at(path[:-1], config))
    ours = _ELSEWHERE.get(said)
    hint = f"here it is called {ours}" if ours in known else did_you_mean(said, known)
    tree.report(path, "unknown key", said=quoted(said), wanted=one_of(known), hint=hint)


def _not_one_of(tree: Tree, path: KeyPath, context: dict[str, Any]) -> None:
    expected = str(context.get("expected", ""))
    names = [name.strip().strip("'") for name in expected.replace(" or ", ", ").split(",") if name.strip()]
    value = tree.at(path)
    hint = did_you_mean(value, names) if isinstance(value, str) else ""
    if isinstance(value, str) and value in names:
        hint = "write it without quotes"
    if "algorithms" in path:
        hint = "only asymmetric signatures: who can check a token must not be able to sign one"
    tree.report(path, "not a value that is known here", wanted=one_of(names), hint=hint)


def keys_at(path: KeyPath, config: type[BaseModel] | None = None) -> Iterable[str]:
    """The keys that may stand in the mapping at ``path``."""
    here: object = Manifest
    for index, key in enumerate(path):
        if config is not None and index == 2:
            here = config
        here = _into(here, key)
    if config is not None and len(path) == 2:
        return [*ProviderShape.model_fields, *config.model_fields]
    shape = _class(here)
    return list(shape.model_fields) if shape is not None else []


def _alternatives(annotation: object) -> list[object]:
    """What a type may be, without wrappers."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return [found for each in get_args(annotation) for found in _alternatives(each)]
    return [annotation]


def _class(annotation: object) -> type[BaseModel] | None:
    found = [each for each in _alternatives(annotation) if isinstance(each, type) and issubclass(each, BaseModel)]
    return found[0] if found else None


def _into(annotation: object, key: str | int) -> object:
    for each in _alternatives(annotation):
        origin = get_origin(each)
        if origin is dict and isinstance(key, str):
            return get_args(each)[1]
        if origin in (list, tuple) and isinstance(key, int):
            return get_args(each)[0]
    shape = _class(annotation)
    if shape is not None and isinstance(key, str) and key in shape.model_fields:
        return shape.model_fields[key].annotation
    return None

"""Top-level fields that decide more than they seem to: refused, hosted, or written so that only some servers know them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from shipworthy.model.chat import Origin
from shipworthy.model.dialects.gather import OUTSIDE, Gather
from shipworthy.model.dialects.strict import Json, Object, shown
from shipworthy.model.errors import Refusal


class FieldRules(Struct, frozen=True):
    """What a dialect knows of its top-level fields.

    ``read``: the dialect reads them itself. ``unread``: no model ever reads them, and they change neither price nor place.
    ``hosted``: they make the provider do, keep or bill something else unless the value is in the set (null, false and an
    empty text or list never do; an empty object does: ``web_search_options: {}`` is how a search is asked for).
    ``refused``: some server takes them for another name of a field that is priced or capped here.
    """

    read: frozenset[str]
    unread: frozenset[str]
    hosted: Mapping[str, frozenset[str]]
    refused: frozenset[str]


ASIDE = frozenset(
    # Other names for the output cap, the number of answers or the model, on llama.cpp, TGI, Ollama, vLLM and OpenRouter:
    # whoever could send them would be served past the cap or by a model that nobody priced.
    {"n_predict", "num_predict", "max_new_tokens", "max_length", "n_cmpl", "best_of", "models", "extra_body"}
)


def apply(rules: FieldRules, fields: Object, gather: Gather) -> None:
    """Refuses, flags and gathers every top-level field that the dialect does not read itself."""
    for key, value in fields.items():
        if key in rules.read:
            continue
        if key in rules.unread:
            continue
        if key in rules.hosted:
            if is_asked(value) and not (isinstance(value, str) and value in rules.hosted[key]):
                gather.tool(key, True, (key,))
        elif key in rules.refused:
            if is_asked(value):
                raise Refusal("decode.unsupported", feature=f"The field {key}")
        elif is_disguised(rules, key):
            raise Refusal(
                "decode.unsupported", feature=f"The field {shown(key)}, {key.casefold()} in another spelling,"
            )
        gather.other(Origin.USER, OUTSIDE, (key,), value)


def is_asked(value: Json) -> bool:
    return value is not None and value is not False and value != "" and value != []


def is_disguised(rules: FieldRules, key: str) -> bool:
    """Go servers match keys without regard to case: ``Model`` or ``meſſages`` would win over what was decoded here."""
    folded = key.casefold()
    if folded == key:
        return False
    return folded in rules.read or folded in rules.hosted or folded in rules.refused

"""The usage and cost exports of providers, told by their headings, and a plain form for everything else.

Headings are compared without case, blanks and punctuation: ``Cost (USD)`` is cost_usd. Several headings of one figure are
added up where a provider counts its parts apart (Anthropic's input without, written to and read from the cache).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from shipworthy.model.errors import Refusal

APART = re.compile(r"[^a-z0-9]+")


class Column(StrEnum):
    """What a line of an export says."""

    DATE = "date"
    UNTIL = "until"  # the end of the line's stretch of time
    MODEL = "model"
    REQUESTS = "requests"
    INPUT = "input_tokens"  # all of them, cached ones included
    CACHED = "cached_tokens"
    OUTPUT = "output_tokens"
    COST = "cost_usd"
    CURRENCY = "currency"
    KIND = "kind"  # only lines of usage count
    EXCHANGE = "exchange_id"  # our id, which providers are sent as x-client-request-id


FIGURES = (Column.REQUESTS, Column.INPUT, Column.CACHED, Column.OUTPUT, Column.COST)


class Format(Struct, frozen=True):
    """One kind of export: what it is called, the headings that tell it, and where each column stands."""

    name: str
    told_by: frozenset[str]
    headings: Mapping[Column, tuple[str, ...]]


class Layout(Struct, frozen=True):
    """Where a file keeps its columns, by position."""

    format: str
    places: Mapping[Column, tuple[int, ...]]
    width: int

    def has(self, column: Column) -> bool:
        return column in self.places


FORMATS = (
    Format(
        "Anthropic usage",
        frozenset({"usage_date_utc", "model_version", "usage_input_tokens_no_cache"}),
        {
            Column.DATE: ("usage_date_utc",),
            Column.MODEL: ("model_version",),
            Column.INPUT: (
                "usage_input_tokens_no_cache",
                "usage_input_tokens_cache_write_5m",
                "usage_input_tokens_cache_write_1h",
                "usage_input_tokens_cache_read",
            ),
            Column.CACHED: ("usage_input_tokens_cache_read",),
            Column.OUTPUT: ("usage_output_tokens",),
        },
    ),
    Format(
        "Anthropic cost",
        frozenset({"usage_date_utc", "model", "token_type", "cost_usd"}),
        {Column.DATE: ("usage_date_utc",), Column.MODEL: ("model",), Column.COST: ("cost_usd",)},
    ),
    Format(
        "OpenAI usage",
        frozenset({"start_time", "num_model_requests", "input_tokens"}),
        {
            Column.DATE: ("start_time",),
            Column.UNTIL: ("end_time",),
            Column.MODEL: ("model",),
            Column.REQUESTS: ("num_model_requests",),
            Column.INPUT: ("input_tokens", "input_audio_tokens"),
            Column.CACHED: ("input_cached_tokens",),
            Column.OUTPUT: ("output_tokens", "output_audio_tokens"),
        },
    ),
    Format(
        "OpenAI cost",
        frozenset({"start_time", "amount_value", "line_item"}),
        {
            Column.DATE: ("start_time",),
            Column.UNTIL: ("end_time",),
            Column.MODEL: ("line_item",),
            Column.COST: ("amount_value",),
            Column.CURRENCY: ("amount_currency",),
        },
    ),
    Format(
        "FOCUS cost",
        frozenset({"chargeperiodstart", "billedcost", "billingcurrency"}),
        {
            Column.DATE: ("chargeperiodstart",),
            Column.UNTIL: ("chargeperiodend",),
            Column.COST: ("billedcost",),
            Column.CURRENCY: ("billingcurrency",),
            Column.KIND: ("chargecategory",),
        },
    ),
)

FOCUS_MODELS = ("x_model", "x_skumetername", "skumeter", "x_skudescription", "skuid", "chargedescription")
"""FOCUS names no model. The first of these that is there stands for one: an SKU whose text --model can match."""

PLAIN: Mapping[Column, tuple[str, ...]] = {
    Column.DATE: ("date", "day", "usage_date", "timestamp", "start_time", "time"),
    Column.MODEL: ("model", "model_name", "model_id", "upstream"),
    Column.REQUESTS: ("requests", "request_count", "num_requests", "n_requests", "num_model_requests"),
    Column.INPUT: ("input_tokens", "prompt_tokens"),
    Column.CACHED: ("cached_tokens", "input_cached_tokens", "cached_input_tokens", "cache_read_input_tokens"),
    Column.OUTPUT: ("output_tokens", "completion_tokens"),
    Column.COST: ("cost_usd", "cost", "amount_usd"),
    Column.CURRENCY: ("currency",),
    Column.EXCHANGE: ("exchange_id", "client_request_id", "x_client_request_id"),
}


def plain(heading: str) -> str:
    """A heading as it is compared."""
    return APART.sub("_", heading.strip().lower()).strip("_")


def layout_of(headings: Sequence[str], said: Mapping[Column, str], name: str) -> Layout:
    """How a file with these headings is read. Raises Refusal admin.invalid with what is missing."""
    known = [plain(heading) for heading in headings]
    twice = sorted({heading for heading in known if heading and known.count(heading) > 1})
    if twice:
        raise Refusal("admin.invalid", name=name, reason=f"the heading {twice[0]!r} is there twice")
    format_name, places = _recognised(known)
    for column, heading in said.items():
        if plain(heading) not in known:
            raise Refusal("admin.invalid", name="columns", reason=f"{name} has no heading {heading!r}")
        places[column] = (known.index(plain(heading)),)
    missing = [column.value for column in (Column.DATE, Column.MODEL) if column not in places]
    if not any(column in places for column in FIGURES):
        missing.append("a figure (requests, input_tokens, output_tokens or cost_usd)")
    if missing:
        read = ", ".join(headings[:12]) + (", …" if len(headings) > 12 else "")
        reason = f"no column for {' nor '.join(missing)} among {read}; say where with --columns date=…,model=…"
        raise Refusal("admin.invalid", name=name, reason=reason)
    return Layout(format_name, places, len(headings))


def _recognised(known: Sequence[str]) -> tuple[str, dict[Column, tuple[int, ...]]]:
    for each in FORMATS:
        if each.told_by <= set(known):
            headings = dict(each.headings)
            if Column.MODEL not in headings:
                headings[Column.MODEL] = tuple(heading for heading in FOCUS_MODELS if heading in known)[:1]
            return each.name, _placed(headings, known, several=True)
    return "plain", _placed(PLAIN, known, several=False)


def _placed(
    headings: Mapping[Column, tuple[str, ...]], known: Sequence[str], several: bool
) -> dict[Column, tuple[int, ...]]:
    places = {}
    for column, names in headings.items():
        found = tuple(known.index(name) for name in names if name in known)
        if found:
            places[column] = found if several else found[:1]
    return places


def columns_said(said: str) -> dict[Column, str]:
    """``date=Day,model=Name`` as columns. Raises Refusal admin.invalid."""
    columns = {}
    for pair in filter(None, (part.strip() for part in said.split(","))):
        name, equals, heading = pair.partition("=")
        if not equals or name.strip() not in list(Column):
            reason = f"{pair!r} is not one of {', '.join(Column)}, an equals sign and a heading"
            raise Refusal("admin.invalid", name="columns", reason=reason)
        columns[Column(name.strip())] = heading.strip()
    return columns

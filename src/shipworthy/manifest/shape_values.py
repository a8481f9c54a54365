"""The kinds of value that a manifest is made of: names, counts, exact money, and keys that are not built yet."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from shipworthy.manifest.reference import wrong
from shipworthy.model.money import NANO_PER_USD

USD_MAX = 1_000_000_000
USD_PER_MTOK_MAX = 1_000_000
PICO_PER_USD_PER_MTOK = 1_000_000  # one USD a million tokens is one million pico-USD a token
ENTRIES_MAX = 10_000

DECIMAL_PATTERN = r"^-?[0-9]{1,20}(\.[0-9]{1,20})?$"
_DECIMAL_TEXT = re.compile(DECIMAL_PATTERN)

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
ALIAS_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$"
CLASS_PATTERN = r"^[A-Za-z][A-Za-z0-9_]{0,31}$"  # a class is also a name in conditions: class.NAME


class Shape(BaseModel):
    """A mapping of the manifest: unknown keys are problems, types are as written, ``key:`` with nothing is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_left_out(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: below for key, below in value.items() if below is not None}
        return {} if value is None else value


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
AliasName = Annotated[str, StringConstraints(pattern=ALIAS_PATTERN)]
ClassName = Annotated[str, StringConstraints(pattern=CLASS_PATTERN)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Days = Annotated[int, Field(ge=0, le=36_500)]
Bytes = Annotated[int, Field(ge=0, le=16_777_216)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Millis = Annotated[int, Field(ge=1, le=3_600_000)]


def exact(value: object, *, places: int, maximum: int, unit: str) -> int:
    """``value`` × 10^places as an integer, or a validation error: money is never rounded on its way in."""
    if isinstance(value, str) and _DECIMAL_TEXT.fullmatch(value):
        value = Decimal(value)  # quoted, so that no editor or generator makes a float of it
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise wrong(
            "money", f"not an amount of {unit}", wanted=f"a number of {unit}", hint="write it without a currency sign"
        )
    amount = Decimal(value)
    if amount < 0:
        raise wrong("money", "negative", wanted=f"0 to {maximum} {unit}")
    if amount > maximum:
        raise wrong("money", "more than can be counted", wanted=f"0 to {maximum} {unit}")
    scaled = amount.scaleb(places)
    if scaled != int(scaled):
        raise wrong(
            "money", "finer than is counted", wanted=f"at most {places} decimals", hint="money is never rounded here"
        )
    return int(scaled)


def _nano(value: object) -> int:
    return exact(value, places=9, maximum=USD_MAX, unit="USD")


def _pico_per_token(value: object) -> int:
    return exact(value, places=6, maximum=USD_PER_MTOK_MAX, unit="USD per million tokens")


def _pico(value: object) -> int:
    return exact(value, places=12, maximum=USD_PER_MTOK_MAX, unit="USD")


def _number(value: object) -> object:
    return float(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value


def _amount(maximum: int) -> WithJsonSchema:
    number = {"type": "number", "minimum": 0, "maximum": maximum}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": DECIMAL_PATTERN}]})


Usd = Annotated[int, BeforeValidator(_nano), _amount(USD_MAX)]
"""USD as written, nano-USD as read."""


def _permille(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise wrong("share", "not a share", wanted="numbers such as 0.5 and 0.8")
    if not 0 < value <= 1:
        raise wrong("share", "not a share", wanted="more than 0, at most 1", hint="write 80 percent as 0.8")
    scaled = Decimal(value).scaleb(3)
    if scaled != int(scaled):
        raise wrong("share", "finer than is compared", wanted="at most 3 decimals")
    return int(scaled)


Share = Annotated[
    int, BeforeValidator(_permille), WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
]
"""A share as written, thousandths as read."""

UsdPerMtok = Annotated[int, BeforeValidator(_pico_per_token), _amount(USD_PER_MTOK_MAX)]
"""USD per million tokens as written, pico-USD per token as read."""

UsdEach = Annotated[int, BeforeValidator(_pico), _amount(USD_PER_MTOK_MAX)]
"""USD as written, pico-USD as read: the price of one thing."""

Number = Annotated[float, BeforeValidator(_number)]

T = TypeVar("T")


def _unbuilt(value: object) -> object:
    """Runs after the value was found well-formed: the key is known, what it asks for does not exist yet."""
    raise wrong("not_available", NOT_AVAILABLE, wanted="this key left out", hint="remove it until it is available")


NOT_AVAILABLE = "not available in this version"

Unbuilt = Annotated[
    T, AfterValidator(_unbuilt), Field(json_schema_extra={"deprecated": True, "$comment": NOT_AVAILABLE})
]
"""A key of the contract whose capability isn't built yet: it parses, and is refused."""

assert USD_MAX * NANO_PER_USD < 2**63, "every amount fits the store's bigint"

"""``providers`` and ``models``: the endpoints that serve, what they promise, and what they cost."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema

from shipworthy.manifest.reference import wrong
from shipworthy.manifest.shape_requirements import NetworkName
from shipworthy.manifest.shape_values import (
    NOT_AVAILABLE,
    Count,
    Days,
    Millis,
    Name,
    Number,
    Shape,
    UsdEach,
    UsdPerMtok,
    Word,
)

Tokens = Annotated[int, Field(ge=1, le=100_000_000)]


def _dated(said: str) -> str:
    try:
        return date.fromisoformat(said).isoformat()
    except ValueError:
        raise wrong("date", "not a day of the calendar", wanted="a date such as 2027-06-30") from None


IsoDate = Annotated[str, AfterValidator(_dated), WithJsonSchema({"type": "string", "format": "date"})]


class AgreementShape(Shape):
    """A contract with the provider; past ``expires`` it no longer counts."""

    id: Word
    expires: IsoDate | None = None


class BoundaryShape(Shape):
    """What a provider promises. What is not stated is the worst case."""

    regions: Annotated[list[Word], Field(max_length=64)] | None = None
    network: NetworkName | None = None
    trains_on_data: bool | None = None
    retention_days: Days | None = None
    agreement: AgreementShape | None = None


class TimeoutsShape(Shape):
    """How long a provider may take."""

    connect_ms: Millis | None = None
    first_token_ms: Millis | None = None
    total_ms: Millis | None = None


class QuotaShape(Shape):
    """What the provider grants the key that we call it with; counted before it is asked."""

    requests_per_min: Count | None = None
    tokens_per_min: Count | None = None


class ProviderShape(Shape):
    """An endpoint. The keys beside these are the kind's own settings, read by its adapter's ``Config``."""

    model_config = ConfigDict(extra="allow")

    kind: Word
    boundary: BoundaryShape = BoundaryShape()
    timeouts: TimeoutsShape = TimeoutsShape()
    concurrent_max: Annotated[int, Field(ge=1, le=100_000)] | None = None
    limits: QuotaShape = QuotaShape()


class PriceShape(Shape):
    """What a model costs; a model without one needs a price in the table. Free is written down: 0."""

    input_usd_per_mtok: UsdPerMtok
    output_usd_per_mtok: UsdPerMtok | None = None
    cache_read_usd_per_mtok: UsdPerMtok | None = None
    cache_write_usd_per_mtok: UsdPerMtok | None = None
    reasoning_usd_per_mtok: UsdPerMtok | None = None
    input_audio_usd_per_mtok: UsdPerMtok | None = None
    output_audio_usd_per_mtok: UsdPerMtok | None = None
    image_usd: UsdEach | None = None
    request_usd: UsdEach | None = None


def _built(ability: str) -> str:
    if ability == "rerank":
        raise wrong("not_available", NOT_AVAILABLE, wanted="chat or embed", hint="remove it until it is available")
    return ability


AbilityName = Annotated[Literal["chat", "embed", "rerank"], AfterValidator(_built)]


class ModelShape(Shape):
    """One upstream model."""

    provider: Name
    upstream: Word
    abilities: Annotated[list[AbilityName], Field(min_length=1)] = ["chat"]
    origin: Literal["frontier", "open-weight", "fine-tuned", "distilled", "unstated"] = "unstated"
    modalities: Annotated[list[Literal["text", "image", "audio", "file"]], Field(min_length=1)] = ["text"]
    context_tokens_max: Tokens = 8192
    output_tokens_max: Count = 2048
    price: PriceShape | None = None
    chars_per_token: Annotated[Number, Field(ge=0.5, le=16)] = 3.5

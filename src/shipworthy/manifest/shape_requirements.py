"""``requirements``: every line rules something out, and may say because of whom, when and why."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from shipworthy.manifest.shape_values import Bytes, ClassName, Days, Shape, Text, Unbuilt, Word

DATA_CLASSES = ("public", "internal", "confidential", "restricted")
CLASSES_MAX = 16

NetworkName = Literal["public", "private", "local"]


class Because(Shape):
    """Who decided a line, when, and why. Documentation: it is in the digest, and rules nothing."""

    who: Text
    when: Text
    why: Text


def _lined(value: object) -> object:
    return {"values": value} if isinstance(value, list) else value


class Regimes(Shape):
    """Regimes the deployment is under, as a list, or long: ``{values: […], because: {…}}``."""

    values: Annotated[list[Word], Field(max_length=32)]
    because: Because | None = None


class DataClasses(Shape):
    """The classes, lowest first, as a list, or long: ``{values: […], because: {…}}``."""

    values: Annotated[list[ClassName], Field(min_length=1, max_length=CLASSES_MAX)] = list(DATA_CLASSES)
    because: Because | None = None


class DemandShape(Shape):
    """What a provider must promise before it sees a class."""

    regions: Annotated[list[Word], Field(min_length=1, max_length=64)] | None = None
    network: Annotated[list[NetworkName], Field(min_length=1)] | None = None
    trains_on_data: bool | None = None
    retention_days_max: Days | None = None
    agreement: bool = False
    because: Because | None = None


class BodiesShape(Shape):
    """How request and answer bodies are kept: 0 bytes keeps none."""

    retention_days: Days = 30
    bytes_max: Bytes = 262_144
    because: Because | None = None


class Audit(Shape):
    """How exchanges are recorded and for how long."""

    durability: Literal["strict", "relaxed"] = "strict"
    retention_days: Annotated[int, Field(ge=1, le=36_500)] = 2555
    bodies: BodiesShape = BodiesShape()
    because: Because | None = None


class Requirements(Shape):
    """What the deployment must hold to."""

    regimes: (
        Unbuilt[Annotated[Regimes, BeforeValidator(_lined, json_schema_input_type=list[Word] | Regimes)]] | None
    ) = None
    data_classes: Annotated[
        DataClasses, BeforeValidator(_lined, json_schema_input_type=list[ClassName] | DataClasses)
    ] = DataClasses()
    boundary: dict[ClassName, DemandShape] = {}
    audit: Audit = Audit()
    because: Because | None = None

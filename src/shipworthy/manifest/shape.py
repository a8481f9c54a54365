"""The whole manifest as the YAML may say it. Its keys are a contract; only ``link`` makes objects of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shipworthy.manifest.reference import Beside
from shipworthy.manifest.shape_identity import IdentityShape, OperatorsShape, TenantShape
from shipworthy.manifest.shape_models import ModelShape, ProviderShape
from shipworthy.manifest.shape_process import (
    AdminShape,
    AlertsShape,
    KeysShape,
    ServerShape,
    StoreShape,
    TelemetryShape,
)
from shipworthy.manifest.shape_requirements import Requirements
from shipworthy.manifest.shape_use_cases import CorpusShape, GuardsShape, UseCaseShape
from shipworthy.manifest.shape_values import ENTRIES_MAX, Name, Shape, Unbuilt

__all__ = ["Manifest"]

_SOME = Field(min_length=1, max_length=ENTRIES_MAX)


class Manifest(Shape):
    """``shipworthy.yaml``."""

    shipworthy: Literal[1]
    name: Name
    environment: Name
    region: Name | None = None  # where this deployment runs; in every row
    requirements: Requirements = Requirements()
    server: ServerShape = ServerShape()
    admin: AdminShape = AdminShape()
    store: StoreShape = StoreShape()
    keys: KeysShape = KeysShape()
    identity: IdentityShape
    tenants: Annotated[dict[Name, TenantShape], Field(max_length=ENTRIES_MAX)] = {}
    tenants_from: Beside | None = None
    operators: OperatorsShape | None = None
    providers: Annotated[dict[Name, ProviderShape], _SOME]
    models: Annotated[dict[Name, ModelShape], _SOME]
    corpora: Unbuilt[dict[Name, CorpusShape]] = {}
    guards: Unbuilt[dict[Name, GuardsShape]] = {}
    use_cases: Annotated[dict[Name, UseCaseShape], _SOME]
    telemetry: TelemetryShape = TelemetryShape()
    alerts: AlertsShape = AlertsShape()

"""What may be asked of the record, by whom: authority, filters, pages, and cost by a dimension."""

from __future__ import annotations

import base64
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from shipworthy.model.exchange import Row

EVERY_TENANT = "*"
"""The scope of an operator. A scope is a tenant's name or this; an empty one is an error, never everything."""

PAGE_ROWS_MAX = 200
PLACE_BYTES = 24
ARRIVED_UNIX_US_MAX = (1 << 63) // 1_000  # the record counts nanoseconds in 64 bits


class Authority(Struct, frozen=True):
    """Who reads or acts on the control plane, and over what: one tenant, or every one (operators)."""

    actor: str
    scope: str

    @property
    def everywhere(self) -> bool:
        return self.scope == EVERY_TENANT

    def covers(self, tenant: str) -> bool:
        return self.scope in (EVERY_TENANT, tenant)


class Wanted(Struct, frozen=True, kw_only=True):
    """Which exchanges are wanted; "" and 0 ask for nothing in particular. ``until`` is exclusive."""

    tenant: str = ""
    team: str = ""
    use_case: str = ""
    model: str = ""
    principal: str = ""  # matches the subject or the actor
    outcome: str = ""
    code: str = ""
    since_unix_ns: int = 0
    until_unix_ns: int = 0

    def said(self) -> dict[str, str]:
        """The filters that were given, as an act records them."""
        return {name: str(getattr(self, name)) for name in self.__struct_fields__ if getattr(self, name)}


class Place(Struct, frozen=True, order=True):
    """Where an exchange stands in the order of the record: by arrival to the microsecond, then by id."""

    arrived_unix_us: int
    id: UUID

    @classmethod
    def of(cls, row: Row) -> Place:
        return cls(row.arrived_unix_ns // 1_000, row.id)

    def cursor(self) -> str:
        """The place as opaque text for a URL."""
        packed = self.arrived_unix_us.to_bytes(8, signed=True) + self.id.bytes
        return base64.urlsafe_b64encode(packed).decode()

    @classmethod
    def at(cls, cursor: str) -> Place:
        """The place that ``cursor`` says. Raises ValueError."""
        packed = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        if len(packed) != PLACE_BYTES:
            raise ValueError(f"{len(packed)} bytes instead of {PLACE_BYTES}")
        place = cls(int.from_bytes(packed[:8], signed=True), UUID(bytes=packed[8:]))
        if not 0 <= place.arrived_unix_us <= ARRIVED_UNIX_US_MAX:
            raise ValueError("a time outside of the record")
        return place


class Page(Struct, frozen=True):
    """Exchanges, newest first. ``after`` is the place to go on from, None at the end."""

    rows: tuple[Row, ...]
    after: Place | None


class By(StrEnum):
    """What cost is told apart by; always within a tenant."""

    TENANT = "tenant"
    TEAM = "team"
    USE_CASE = "use-case"
    MODEL = "model"
    PRINCIPAL = "principal"


class CostAsked(Struct, frozen=True, kw_only=True):
    """Which exchanges are summed, by arrival: ``since`` inclusive, ``until`` exclusive."""

    by: By
    since_unix_ns: int
    until_unix_ns: int
    tenant: str = ""


class CostLine(Struct, frozen=True, kw_only=True):
    """What one tenant's exchanges of one name came to.

    By model, money and tokens follow the charge lines, so that each attempt's model is charged rightly, while exchanges,
    outcomes and overrun are counted at the model that answered ("" when none did).
    """

    tenant: str
    name: str
    exchanges: int = 0
    served: int = 0
    refused: int = 0
    cut: int = 0
    failed: int = 0
    abandoned: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    charged_nano: int = 0
    overrun_nano: int = 0
    corrected_nano: int = 0  # of charged_nano: what corrections added or took

"""What may be asked of the record, by whom: authority, filters, pages, and cost by a dimension."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from shipworthy.model.exchange import Row

EVERY_TENANT = "*"
"""The scope of an operator. A scope is a tenant's name or this; an empty one is an error, never everything."""

PAGE_ROWS_MAX = 200


class Authority(Struct, frozen=True):
    """Who reads or acts on the control plane, and over what: one tenant, or every one (operators)."""

    actor: str
    scope: str

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


class Page(Struct, frozen=True):
    """Exchanges, newest first by id. ``after`` is the id to go on from, None at the end."""

    rows: tuple[Row, ...]
    after: UUID | None


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

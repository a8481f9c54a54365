"""What the query of an admin request says, read strictly: a filter that is misspelt is refused, never everything."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from starlette.datastructures import QueryParams

from shipworthy.control.finops import Span, instant, span_of, unix_ns, zone_of
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Outcome
from shipworthy.model.op import Clock
from shipworthy.model.reading import PAGE_ROWS_MAX, By, Place, Wanted

VALUE_CHARS_MAX = 256
LIMIT = 50
FILTERS = ("tenant", "team", "use_case", "model", "principal", "outcome", "code", "since", "until", "zone")
PAGING = ("limit", "cursor")
COST = ("by", "since", "until", "period", "zone", "tenant", "format")


class Query:
    """The parameters of one request, each at most once and only those that are known here."""

    def __init__(self, params: QueryParams, known: tuple[str, ...], clock: Clock) -> None:
        self.now = datetime.fromtimestamp(clock.unix_ns() // 1_000_000_000, tz=UTC)
        self._said: dict[str, str] = {}
        for name, value in params.multi_items():
            if name not in known:
                raise Refusal("admin.invalid", name=f"parameter {name[:40]!r}", reason=f"known are {', '.join(known)}")
            if name in self._said:
                raise Refusal("admin.invalid", name=name, reason="it is there twice")
            if len(value) > VALUE_CHARS_MAX or "\0" in value:
                raise Refusal(
                    "admin.invalid", name=name, reason=f"at most {VALUE_CHARS_MAX} letters are wanted, no NUL"
                )
            self._said[name] = value

    def text(self, name: str) -> str:
        return self._said.get(name, "")

    def wanted(self) -> Wanted:
        """The filters of a list of exchanges."""
        if self.text("outcome") not in ("", *Outcome):
            raise Refusal("admin.invalid", name="outcome", reason=f"wanted is one of {', '.join(Outcome)}")
        return Wanted(
            tenant=self.text("tenant"),
            team=self.text("team"),
            use_case=self.text("use_case"),
            model=self.text("model"),
            principal=self.text("principal"),
            outcome=self.text("outcome"),
            code=self.text("code"),
            since_unix_ns=self._instant("since"),
            until_unix_ns=self._instant("until"),
        )

    def _instant(self, name: str) -> int:
        said = self.text(name)
        return unix_ns(instant(name, said, zone_of(self.text("zone")), self.now)) if said else 0

    def limit(self) -> int:
        said = self.text("limit")
        if not said:
            return LIMIT
        if not (said.isascii() and said.isdigit()) or not 1 <= int(said) <= PAGE_ROWS_MAX:
            raise Refusal("admin.invalid", name="limit", reason=f"1 to {PAGE_ROWS_MAX} is wanted")
        return int(said)

    def place(self) -> Place | None:
        said = self.text("cursor")
        try:
            return Place.at(said) if said else None
        except ValueError as wrong:
            raise Refusal("admin.invalid", name="cursor", reason="it is not one that this API gave") from wrong

    def by(self) -> By:
        try:
            return By(self.text("by") or By.USE_CASE)
        except ValueError as wrong:
            raise Refusal("admin.invalid", name="by", reason=f"wanted is one of {', '.join(By)}") from wrong

    def span(self) -> Span:
        zone = zone_of(self.text("zone"))
        return span_of(self.text("since"), self.text("until"), self.text("period"), zone, self.now)

    def choice(self, name: str, *choices: str) -> str:
        """One of ``choices``; nothing said = the first."""
        said = self.text(name) or choices[0]
        if said not in choices:
            raise Refusal("admin.invalid", name=name, reason=f"wanted is one of {', '.join(choices)}")
        return said


def exchange_id(said: str) -> UUID:
    """The id in a path."""
    return _id("exchange", said)


def pause_id(said: str) -> UUID:
    """The id in a path."""
    return _id("pause", said)


def _id(what: str, said: str) -> UUID:
    try:
        return UUID(said)
    except ValueError as wrong:
        raise Refusal("admin.not_found", what=what, id=said[:64]) from wrong

"""A provider's export as it is read: bounded, exact, and every line that cannot be read is named.

Sums by UTC day and model are kept, and lines of their own only where they name one of our exchanges.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import BinaryIO
from uuid import UUID

from msgspec import Struct

from shipworthy.control.figures import EXACT, count, exact
from shipworthy.control.usage_formats import Column, Layout, layout_of
from shipworthy.model.errors import Refusal

FILE_BYTES_MAX = 512 * 1024 * 1024
LINES_MAX = 2_000_000
LINE_CHARS_MAX = 65_536
FIELD_CHARS_MAX = 4_096
GROUPS_MAX = 100_000
EXCHANGES_MAX = 200_000
LINES_PER_EXCHANGE_MAX = 64
BAD_LINES_SHOWN = 20
STRETCH_MAX = timedelta(days=1)
UNIX_S_MAX = 7_258_118_400  # the year 2200
DELIMITERS = (",", ";", "\t")
BYTE_ORDER_16 = (b"\xff\xfe", b"\xfe\xff")


class Theirs(Struct):
    """What a provider counts: of a day and a model, or of one request. Cost in exact dollars."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)

    def add(self, other: Theirs) -> None:
        self.requests += other.requests
        self.input_tokens += other.input_tokens
        self.cached_tokens += other.cached_tokens
        self.output_tokens += other.output_tokens
        self.cost_usd = EXACT.add(self.cost_usd, other.cost_usd)


class Request(Struct, frozen=True):
    """One line that names one of our exchanges."""

    model: str
    figures: Theirs


class BadLine(Struct, frozen=True):
    """A line that cannot be read, by its number in the file, and why."""

    line: int
    reason: str


class UnreadableUsage(Refusal):
    """Lines of an export cannot be read: nothing of it is used. ``bad`` holds the first of ``count``."""

    def __init__(self, name: str, bad: Sequence[BadLine], count: int) -> None:
        self.bad = tuple(bad)
        self.count = count
        said = "; ".join(f"line {each.line}: {each.reason}" for each in bad[:3])
        more = f" and {count - 3} more lines" if count > 3 else ""
        super().__init__("admin.invalid", name=name, reason=said + more)


class UsageFile(Struct):
    """An export, read to its end."""

    name: str
    sha256: str
    layout: Layout
    lines: int = 0
    empty: int = 0  # lines of a stretch of time without any usage
    left_out: int = 0  # lines of taxes, credits and the like
    left_out_usd: Decimal = Decimal(0)
    first: date | None = None
    last: date | None = None
    groups: dict[tuple[date, str], Theirs] = {}
    requests: dict[UUID, list[Request]] = {}

    @property
    def models(self) -> frozenset[str]:
        return frozenset(model for _, model in self.groups)

    def has(self, column: Column) -> bool:
        return self.layout.has(column)


def read_usage(file: BinaryIO, name: str, said: Mapping[Column, str], mark: str = "") -> UsageFile:
    """The export in ``file``. ``mark`` is the decimal mark, "" = not said. Raises UnreadableUsage, Refusal admin.invalid."""
    bytes_read = _Hashed(file, name)
    text = io.TextIOWrapper(io.BufferedReader(bytes_read, 1 << 20), encoding="utf-8-sig", newline="")
    try:
        lines = _lines(text, name)
        head = next(lines, "")
        if not head:
            raise Refusal("admin.invalid", name=name, reason="it is empty")
        delimiter = max(DELIMITERS, key=lambda each: head.count(each))
        usage = _read(csv.reader(_with(head, lines), delimiter=delimiter, strict=True), name, said, mark, delimiter)
    except UnicodeDecodeError as wrong:
        reason = f"it is not UTF-8: {wrong.reason}; save it as CSV UTF-8"
        raise Refusal("admin.invalid", name=name, reason=reason) from wrong
    finally:
        text.detach()
    usage.sha256 = bytes_read.sha256.hexdigest()
    return usage


class _Hashed(io.RawIOBase):
    """The file's bytes, bounded, with their digest; text in UTF-16 is told at once."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.sha256 = hashlib.sha256()
        self._file = file
        self._name = name
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._file.read(len(buffer))
        if not self._size and piece[:2] in BYTE_ORDER_16:
            raise Refusal("admin.invalid", name=self._name, reason="it is UTF-16; save it as CSV UTF-8")
        self._size += len(piece)
        if self._size > FILE_BYTES_MAX:
            raise Refusal("admin.invalid", name=self._name, reason=f"it is longer than {FILE_BYTES_MAX} bytes")
        self.sha256.update(piece)
        buffer[: len(piece)] = piece
        return len(piece)


def _lines(text: io.TextIOWrapper, name: str) -> Iterator[str]:
    number = 0
    while line := text.readline(LINE_CHARS_MAX + 1):
        number += 1
        if len(line) > LINE_CHARS_MAX:
            raise UnreadableUsage(name, [BadLine(number, f"longer than {LINE_CHARS_MAX} letters")], 1)
        yield line


def _with(head: str, lines: Iterator[str]) -> Iterator[str]:
    yield head
    yield from lines


def _read(records: Iterator[list[str]], name: str, said: Mapping[Column, str], mark: str, delimiter: str) -> UsageFile:
    bad: list[BadLine] = []
    wrong = 0
    line = 1
    usage: UsageFile | None = None
    while True:
        try:
            record = next(records, None)
            if record is None:
                break
            if usage is None:
                usage = UsageFile(name, "", layout_of(record, said, name))
            elif any(field.strip() for field in record):
                _take(usage, record, mark, delimiter)
        except UnicodeDecodeError:
            raise
        except (ValueError, csv.Error) as unreadable:
            wrong += 1
            if len(bad) < BAD_LINES_SHOWN:
                bad.append(BadLine(line, str(unreadable)))
        line = getattr(records, "line_num", line) + 1
    if wrong:
        raise UnreadableUsage(name, bad, wrong)
    assert usage is not None, "there was a first line"
    return usage


def _take(usage: UsageFile, record: list[str], mark: str, delimiter: str) -> None:
    """Adds one line. Raises ValueError with what is wrong with it."""
    layout = usage.layout
    usage.lines += 1
    if usage.lines > LINES_MAX:
        raise Refusal("admin.invalid", name=usage.name, reason=f"it has more than {LINES_MAX} lines; cut it by time")
    if len(record) != layout.width:
        raise ValueError(f"{len(record)} fields where the heading has {layout.width}")
    if (longest := max(map(len, record))) > FIELD_CHARS_MAX:
        raise ValueError(f"a field is {longest} letters long; at most {FIELD_CHARS_MAX} are read")
    line = _Line(layout, record, mark, delimiter)
    day = line.day()
    usage.first = min(usage.first or day, day)
    usage.last = max(usage.last or day, day)
    figures = line.figures()
    if not line.counts():
        usage.left_out += 1
        usage.left_out_usd = EXACT.add(usage.left_out_usd, figures.cost_usd)
        return
    model = line.model()
    if not model:
        if figures != Theirs():
            raise ValueError("figures, but no model: export them grouped by model")
        usage.empty += 1
        return
    usage.groups.setdefault((day, model), Theirs()).add(figures)
    if len(usage.groups) > GROUPS_MAX:
        raise Refusal(
            "admin.invalid", name=usage.name, reason=f"more than {GROUPS_MAX} days and models; cut it by time"
        )
    exchange_id = line.exchange_id()
    if exchange_id is not None:
        requests = usage.requests.setdefault(exchange_id, [])
        requests.append(Request(model, figures))
        if len(usage.requests) > EXCHANGES_MAX or len(requests) > LINES_PER_EXCHANGE_MAX:
            most = f"at most {EXCHANGES_MAX} exchanges of {LINES_PER_EXCHANGE_MAX} lines each are read"
            raise Refusal("admin.invalid", name=usage.name, reason=f"{most}; cut it by time")


class _Line:
    """One line's fields by their column."""

    def __init__(self, layout: Layout, record: list[str], mark: str, delimiter: str) -> None:
        self._layout = layout
        self._record = record
        self._mark = mark
        self._delimiter = delimiter

    def day(self) -> date:
        begin = instant_of(self._text(Column.DATE))
        until = self._text(Column.UNTIL)
        if until and instant_of(until) - begin > STRETCH_MAX:
            raise ValueError("it sums up more than a day; export by day")
        return begin.date()

    def model(self) -> str:
        said = self._text(Column.MODEL)
        return said.partition(",")[0].strip() if self._layout.format == "OpenAI cost" else said

    def counts(self) -> bool:
        currency, kind = self._text(Column.CURRENCY), self._text(Column.KIND)
        if currency and currency.upper() != "USD":
            raise ValueError(f"the amount is in {currency}; only USD is compared")
        return not kind or kind.lower() == "usage"

    def figures(self) -> Theirs:
        return Theirs(
            requests=self._count(Column.REQUESTS),
            input_tokens=self._count(Column.INPUT),
            cached_tokens=self._count(Column.CACHED),
            output_tokens=self._count(Column.OUTPUT),
            cost_usd=self._cost(),
        )

    def exchange_id(self) -> UUID | None:
        said = self._text(Column.EXCHANGE)
        try:
            return UUID(said) if said else None
        except ValueError:
            raise ValueError(f"exchange_id: {said[:64]!r} is no id of an exchange") from None

    def _text(self, column: Column) -> str:
        places = self._layout.places.get(column, ())
        return self._record[places[0]].strip() if places else ""

    def _count(self, column: Column) -> int:
        fields = [self._record[place].strip() for place in self._layout.places.get(column, ())]
        try:
            return sum(count(field, self._marked(field)) for field in fields if field)
        except ValueError as wrong:
            raise ValueError(f"{column.value}: {wrong}") from wrong

    def _cost(self) -> Decimal:
        total = Decimal(0)
        for place in self._layout.places.get(Column.COST, ()):
            field = self._record[place].strip()
            try:
                total = EXACT.add(total, exact(field, self._marked(field))) if field else total
            except ValueError as wrong:
                raise ValueError(f"{Column.COST.value}: {wrong}") from wrong
        return total

    def _marked(self, field: str) -> str:
        """The decimal mark of ``field``. Files with semicolons come from where it may be a comma: then it must be said."""
        if not self._mark and self._delimiter == ";" and "," in field:
            raise ValueError(
                f"in {field!r} the comma may be a decimal mark or not: say --decimal point or --decimal comma"
            )
        return self._mark or "."


def instant_of(said: str) -> datetime:
    """A date, a time (without offset: UTC) or seconds since 1970, in UTC. Raises ValueError."""
    if said.isascii() and said.isdigit() and len(said) > 8:
        if int(said) > UNIX_S_MAX:
            raise ValueError(f"{said!r} is no time in seconds since 1970")
        return datetime.fromtimestamp(int(said), tz=UTC)
    try:
        at = datetime.fromisoformat(said.removesuffix(" UTC"))
    except ValueError:
        raise ValueError(f"{said[:40]!r} is no date like 2026-11-01, nor a time") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)

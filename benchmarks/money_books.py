"""The reckoning after a scene: rows, counters and the provider's own log, line by line and to the nano-dollar.

Everything here is computed anew from what the provider logged and what the manifest prices; of the product only the rows
and the counters are read.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import psycopg
from money_fire import Fire, Kill
from money_load import Asked

INPUT_USD_PER_MTOK = Decimal("1.0007")
OUTPUT_USD_PER_MTOK = Decimal("4.0003")
"""As money.yaml says; a charge line is rounded once, half up, to a nano-dollar."""

ROWS = """
select id::text, team, use_case, outcome, refusal_code, flags ? 'presumed', held_nano, charged_nano, overrun_nano,
       to_char(arrived_at at time zone 'UTC', 'YYYY-MM'), usage ->> 'basis',
       case refusal_code when 'reserve.store_unavailable' then substring(refusal_detail from 62 for 100) end, lease_id::text
from exchange
"""
COUNTERS = """
select key, to_char(period_start at time zone 'UTC', 'YYYY-MM'), cap_nano, charged_nano, held_nano, leased_nano,
       suspended_nano
from counter where cap_nano > 0
"""


@dataclass(frozen=True)
class Line:
    """One line of the provider's log."""

    id: str
    asked_ns: int
    ended_ns: int
    input: int
    output: int
    factor: int
    ended: str
    port: int

    @property
    def cost_nano(self) -> int:
        return nano(self.input * INPUT_USD_PER_MTOK) + nano(self.output * OUTPUT_USD_PER_MTOK)


def nano(micro_usd: Decimal) -> int:
    return int((micro_usd * 1_000).quantize(Decimal(1), ROUND_HALF_UP))


@dataclass(frozen=True)
class Row:
    """What is read of a row of the record."""

    id: str
    team: str
    use_case: str
    outcome: str
    refusal: str
    presumed: bool
    held: int
    charged: int
    overrun: int
    month: str
    basis: str | None
    away: str | None  # why the store could not be asked
    lease: str | None  # that paid

    @property
    def levels(self) -> tuple[str, ...]:
        return tuple(level for level in ("tenant", f"team={self.team}", f"use_case={self.use_case}") if level in LEVELS)


SEEN_LATE_NS = 1_000_000_000
"""So much later than it was sent a busy provider may have seen a request."""
LEVELS = ("tenant", "team=a", "use_case=chat")


@dataclass(frozen=True)
class Standing:
    """One counter."""

    key: str
    month: str
    cap: int
    charged: int
    held: int
    leased: int
    suspended: int


@dataclass
class Books:
    """All that is known after a scene."""

    rows: dict[str, Row]
    twice: list[str]
    counters: list[Standing]
    log: dict[str, Line]
    logged_twice: list[str]
    in_flight: int


def read(url: str, log: Path) -> Books:
    with psycopg.connect(url, autocommit=True) as conn:
        rows = [Row(*values) for values in conn.execute(ROWS).fetchall()]
        counters = [Standing(*values) for values in conn.execute(COUNTERS).fetchall()]
        flying = conn.execute("select coalesce(sum(in_flight), 0)::bigint from pace").fetchone()
    assert flying is not None
    lines = [Line(**json.loads(text)) for text in log.read_text().splitlines()]
    return Books(
        {row.id: row for row in rows},
        _repeated(row.id for row in rows),
        counters,
        {line.id: line for line in lines},
        _repeated(line.id for line in lines),
        int(flying[0]),
    )


def _repeated(ids: Iterable[str]) -> list[str]:
    return [each for each, count in Counter(ids).items() if count > 1]


@dataclass
class Lost:
    """Requests that the provider served and nobody recorded, by one kill (relaxed: those of the last moments before it)."""

    count: int = 0
    nano: int = 0
    oldest_ms: float = 0.0  # from the provider's first sight of the oldest to the kill
    store_there_s: float = 0.0


@dataclass
class Reckoning:
    """What the books say; ``wrong`` is empty when all of it agrees."""

    admitted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    away: Counter[str] = field(default_factory=Counter)
    charged: dict[str, int] = field(default_factory=dict)
    caps: dict[str, int] = field(default_factory=dict)
    overruns: dict[str, int] = field(default_factory=dict)
    overrun_rows: int = 0
    beyond_nano: int = -(10**18)
    compared: int = 0
    compared_nano: int = 0
    presumed: int = 0
    presumed_nano: int = 0
    presumed_logged_nano: int = 0
    presumed_unsent: int = 0
    presumed_short: int = 0
    presumed_short_nano: int = 0
    presumed_less: int = (
        0  # rows of an honest provider, presumed at less than it logged: another of their lease at more
    )
    presumed_less_nano: int = 0
    unreported: int = 0
    unreported_nano: int = 0
    lost: list[Lost] = field(default_factory=list)
    held_times: float = 0.0
    at_once: int = 0
    wrong: list[str] = field(default_factory=list)

    def must(self, holds: bool, said: str) -> None:
        if not holds:
            self.wrong.append(said)


def reckon(books: Books, fire: Fire, *, strict: bool) -> Reckoning:
    """Compares everything with everything."""
    found = Reckoning()
    found.must(not books.twice, f"{len(books.twice)} exchanges have more than one row")
    found.must(not books.logged_twice, f"{len(books.logged_twice)} exchanges were sent to the provider more than once")
    rows = list(books.rows.values())
    found.admitted = sum(row.held > 0 for row in rows)
    found.refused = Counter(row.refusal for row in rows if row.outcome == "refused")
    found.outcomes = Counter(row.outcome for row in rows)
    found.away = Counter(row.away for row in rows if row.away)
    _compare_counters(books, found)
    _compare_log(books, found, strict=strict)
    _count_lost(books, fire, found)
    lost = sum(each.count for each in found.lost)
    found.must(not strict or not lost, f"{lost} lines of the provider's log have no row")
    _judge(books, found)
    return found


def _compare_counters(books: Books, found: Reckoning) -> None:
    """Rows against counters, at every level and in every period."""
    for standing in books.counters:
        mine = [row for row in books.rows.values() if standing.key in row.levels and row.month == standing.month]
        charged, overrun = sum(row.charged for row in mine), sum(row.overrun for row in mine)
        where = f"{standing.key} of {standing.month}"
        found.must(charged == standing.charged, f"{where}: rows {charged}, counter {standing.charged}")
        aside = (standing.held, standing.leased, standing.suspended)
        found.must(aside == (0, 0, 0), f"{where}: held, leased, suspended {aside} after all has ended")
        beyond = charged - overrun - standing.cap
        found.must(beyond <= 0, f"{where}: charged {beyond} beyond the cap, overruns left out")
        found.charged[standing.key] = found.charged.get(standing.key, 0) + charged
        found.overruns[standing.key] = found.overruns.get(standing.key, 0) + overrun
        found.caps[standing.key] = found.caps.get(standing.key, 0) + standing.cap
    found.must(set(found.caps) == set(LEVELS), f"counters of {sorted(found.caps)}, not of {LEVELS}")
    found.must(books.in_flight == 0, f"{books.in_flight} requests count as in flight after all has ended")
    found.overrun_rows = sum(row.overrun > 0 for row in books.rows.values())


def _compare_log(books: Books, found: Reckoning, *, strict: bool) -> None:
    """Rows against the provider's log, one by one."""
    times: list[float] = []
    left: dict[str, int] = defaultdict(int)  # of what was presumed, by the lease that paid
    for row in books.rows.values():
        line = books.log.get(row.id)
        if row.presumed:
            _presumed(row, line, found, strict=strict)
            honest = line.cost_nano if line is not None and line.factor == 1 else 0
            left[row.lease or row.id] += row.charged - honest
        elif line is None:
            found.must(row.charged == 0, f"{row.id} is charged {row.charged}, and the provider never saw it")
        elif line.ended == "said" and row.basis == "reported":
            found.compared += 1
            found.compared_nano += row.charged
            found.must(row.charged == line.cost_nano, f"{row.id}: charged {row.charged}, logged {line.cost_nano}")
            found.must(
                row.overrun == max(0, row.charged - row.held), f"{row.id}: overrun {row.overrun} of {row.charged}"
            )
            if line.factor == 1:
                times.append(row.held / row.charged)
        else:  # the client had left, and the drain was over before the answer was
            found.unreported += 1
            found.unreported_nano += row.charged - line.cost_nano
    found.held_times = min(times, default=0.0)
    for lease, nano in left.items():
        found.must(nano >= 0, f"what was presumed on {lease} is {-nano} less than the provider logged")


def _presumed(row: Row, line: Line | None, found: Reckoning, *, strict: bool) -> None:
    """A worker died with it: charged at its ceiling, which the provider's claim exceeds only where it lies.

    In ``relaxed`` a lease may have been spent again before its rows were written: then the ceilings of those that were lost
    and of those that came after share what it had, and only their sum covers what was used.
    """
    found.presumed += 1
    found.presumed_nano += row.charged
    found.must(row.charged == row.held, f"{row.id} is presumed at {row.charged}, held {row.held}")
    if line is None:
        found.presumed_unsent += 1
        return
    found.presumed_logged_nano += line.cost_nano
    if line.cost_nano <= row.charged:
        return
    if line.factor > 1:
        found.presumed_short += 1
        found.presumed_short_nano += line.cost_nano - row.charged
    else:
        found.must(not strict, f"{row.id}: presumed at {row.charged}, logged {line.cost_nano}")
        found.presumed_less += 1
        found.presumed_less_nano += line.cost_nano - row.charged


def _count_lost(books: Books, fire: Fire, found: Reckoning) -> None:
    """Lines without a row, each beside the kill of the process that had asked."""
    by_kill: dict[int, Lost] = {}
    for line in books.log.values():
        if line.id in books.rows:
            continue
        kill = _kill_of(line, fire)
        if kill is None:
            found.wrong.append(f"{line.id} has no row, and whoever asked for it was not killed")
            continue
        lost = by_kill.setdefault(kill.at_ns, Lost(store_there_s=kill.store_there_s))
        lost.count += 1
        lost.nano += line.cost_nano
        lost.oldest_ms = max(lost.oldest_ms, (kill.at_ns - line.asked_ns) / 1e6)
    found.lost = list(by_kill.values())


def _kill_of(line: Line, fire: Fire) -> Kill | None:
    """The kill of the process that asked for ``line``: whose its connection was at the nearest look at all connections."""
    kills = {kill.pid: kill for kill in fire.kills}
    for sighting in sorted(fire.sightings, key=lambda one: abs(one.at_ns - line.asked_ns)):
        kill = kills.get(sighting.owners.get(line.port, 0))
        if kill is not None and kill.at_ns >= line.asked_ns - SEEN_LATE_NS:
            return kill
    return None


def _judge(books: Books, found: Reckoning) -> None:
    """Each admission, at the moment when the provider saw it: what was surely set aside or spent then, without overruns.

    A request that reached the provider was held before, and stays held at least until the provider's last byte.
    """
    for standing in books.counters:
        moves: list[tuple[int, int]] = []
        for row in books.rows.values():
            line = books.log.get(row.id)
            if line is None or standing.key not in row.levels or row.month != standing.month:
                continue
            spent = min(row.held, row.charged)
            surely = row.held if line.ended == "said" else spent
            moves += [(line.asked_ns, surely), (line.ended_ns, spent - surely)]
        total = 0
        for _, move in sorted(moves, key=lambda one: (one[0], one[1])):
            total += move
            found.beyond_nano = max(found.beyond_nano, total - standing.cap)
    flights = [(line.asked_ns, 1) for line in books.log.values()] + [(line.ended_ns, -1) for line in books.log.values()]
    now = 0
    for _, step in sorted(flights):
        now += step
        found.at_once = max(found.at_once, now)
    found.must(found.beyond_nano <= 0, f"an admission {found.beyond_nano} nano-dollars beyond a cap")


def received_without_row(asked: Sequence[Asked], books: Books) -> int:
    """Answers that a client got whole and nobody recorded."""
    return sum(one.ended == "served" and one.id not in books.rows for one in asked)

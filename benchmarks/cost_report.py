"""A tenant's cost report over millions of rows: how long each dimension takes, and that it equals the rows. See README.md.

One command makes a cluster of its own in a temporary directory, fills one month of one tenant with rows, lets the control
plane's job sum them, and asks for reports as the tenant does. Each is held against a plain sum over the same rows.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
from msgspec import Struct

from shipworthy.adapters.embedded.postgres import EmbeddedPostgres
from shipworthy.adapters.store import migrate
from shipworthy.adapters.store.costs import StoreCostSums
from shipworthy.adapters.store.exchanges import StoreExchanges
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.pool import Store
from shipworthy.adapters.store.vault import Vault
from shipworthy.control.finops import Span, total_of
from shipworthy.model.reading import EVERY_TENANT, By, CostAsked, CostLine

TENANT = "acme"
CHUNK = 100_000
ASKED_TIMES = 3
GOAL_S = 1.0
TELLING = {By.TENANT: "tenant", By.TEAM: "team", By.USE_CASE: "use_case", By.PRINCIPAL: "subject"}

FILL = """
insert into exchange (
  tenant, arrived_at, id, arrived_unix_ns, environment, region, kind, team, role, subject, actor, end_user, issuer, key_id,
  session, use_case, alias, operation, dialect, mode, data_class, clearance, release_digest, manifest_digest, rules,
  strategy, candidates, attempts, steps, receipts, passage_ids, usage, charge_lines, estimated_nano, held_nano, charged_nano,
  overrun_nano, traceparent, outcome, refusal_code, refusal_detail, model, provider, source, stream, finish, cut, flags,
  duration_ns, first_token_ns, request_bytes, reply_bytes)
select %(tenant)s, arrived_at(r.ns), gen_random_uuid(), r.ns, '', '', 'request', 'team-' || r.x %% 20, '', 'p-' || r.who,
       '', '', '', '', '', 'use-' || r.x %% 47, '', 'chat', '', 'enforce', '', '', '', '', '[]', '',
       '[]', '[]', '[]', '[]', '[]', null, l.lines, 0, 0, l.nano,
       case when r.x %% 97 = 0 then l.nano / 3 else 0 end, '', r.outcome, '', '', 'model-' || r.x %% 7, '', 'model', false,
       '[]', '[]', '[]', 0, 0, 0, 0
from (
  select %(since_ns)s + (%(step_ns)s * (n + random()))::bigint as ns, hashint8(n)::bigint & 2147483647 as x,
         (random() * %(principals)s)::int as who,
         case n %% 50 when 0 then 'refused' when 1 then 'failed' when 2 then 'cut' when 3 then 'abandoned'
                      else 'served' end as outcome
  from generate_series(%(first)s::bigint, %(last)s::bigint) n
) r
cross join lateral (
  select coalesce(jsonb_agg(jsonb_build_object(
           'attempt', c.attempt, 'model', 'model-' || (r.x + c.attempt) %% 7, 'component', c.component,
           'quantity', c.quantity, 'unit_price_pico', 1000, 'amount_nano', c.quantity * (7 + r.x %% 7),
           'basis', 'reported')), '[]') as lines,
         coalesce(sum(c.quantity * (7 + r.x %% 7)), 0)::bigint as nano
  from (values (0, 'input_tokens', 100 + r.x %% 3001), (0, 'output_tokens', 10 + r.x %% 499),
               (1, 'input_tokens', 100 + r.x %% 3001), (1, 'reasoning_output_tokens', 1 + r.x %% 99))
    c(attempt, component, quantity)
  where r.outcome <> 'refused' and (c.attempt = 0 or r.x %% 20 = 0)  -- one in twenty was billed by two models
) l
"""

# The same question put to the rows alone.
PLAIN = """
select grouping(tenant, team, use_case, subject), coalesce(subject, use_case, team, tenant), count(*),
       count(*) filter (where outcome = 'served'), count(*) filter (where outcome = 'refused'),
       count(*) filter (where outcome = 'cut'), count(*) filter (where outcome = 'failed'),
       count(*) filter (where outcome = 'abandoned'), coalesce(sum(input), 0), coalesce(sum(output), 0),
       sum(charged_nano), sum(overrun_nano)
from exchange cross join lateral (
  select sum((line ->> 'quantity')::bigint) filter (where line ->> 'component' = 'input_tokens') as input,
         sum((line ->> 'quantity')::bigint) filter (where line ->> 'component' <> 'input_tokens') as output
  from jsonb_array_elements(charge_lines) line) l
where arrived_unix_ns >= %(since)s and arrived_unix_ns < %(until)s
  and arrived_at >= %(since_at)s and arrived_at <= %(until_at)s
group by grouping sets ((tenant), (team), (use_case), (subject))
"""
PLAIN_BY_MODEL = """
select name, sum(n), sum(n) filter (where outcome = 'served'), sum(n) filter (where outcome = 'refused'),
       sum(n) filter (where outcome = 'cut'), sum(n) filter (where outcome = 'failed'),
       sum(n) filter (where outcome = 'abandoned'), sum(input), sum(output), sum(charged), sum(overrun)
from exchange cross join lateral (
  select model as name, 1 as n, 0 as input, 0 as output, 0 as charged, overrun_nano as overrun
  union all
  select line ->> 'model', 0, case when line ->> 'component' = 'input_tokens' then (line ->> 'quantity')::bigint else 0 end,
         case when line ->> 'component' <> 'input_tokens' then (line ->> 'quantity')::bigint else 0 end,
         (line ->> 'amount_nano')::bigint, 0
  from jsonb_array_elements(charge_lines) line) l
where arrived_unix_ns >= %(since)s and arrived_unix_ns < %(until)s
  and arrived_at >= %(since_at)s and arrived_at <= %(until_at)s
group by name
"""
DIMENSION_OF = {0b0111: By.TENANT, 0b1011: By.TEAM, 0b1101: By.USE_CASE, 0b1110: By.PRINCIPAL}
FIGURES = CostLine.__struct_fields__[2:12]  # what rows say; corrections are not among them


class Asked(Struct, frozen=True):
    """One stretch of time, and how it came to be."""

    words: str
    span: Span


@contextmanager
def cluster() -> Iterator[tuple[str, str]]:
    """A migrated store that is gone afterwards: the server's URL, and the owner's."""
    base = Path(tempfile.mkdtemp(prefix="shipworthy-bench-"))
    base.chmod(0o755)
    launcher = EmbeddedPostgres(base / "store", base=base)
    try:
        started = launcher.start()
        migrate.apply(started.migrate_url, migrate.login_of(started.url))
        yield started.url, started.migrate_url
    finally:
        launcher.stop()
        shutil.rmtree(base, ignore_errors=True)


def fill(owner_url: str, month: datetime, after: datetime, rows: int, principals: int) -> None:
    """``rows`` rows, evenly over the month."""
    since_ns, until_ns = Span(month, after).since_unix_ns, Span(month, after).until_unix_ns
    with psycopg.connect(owner_url, autocommit=True, options="-c search_path=shipworthy,public") as conn:
        conn.execute("set synchronous_commit = off")
        conn.execute("select prepare_partitions(0, %s)", (month,))
        began = time.perf_counter()
        for first in range(0, rows, CHUNK):
            last = min(first + CHUNK, rows) - 1
            named = {"tenant": TENANT, "principals": principals, "first": first, "last": last}
            named |= {"since_ns": since_ns, "step_ns": (until_ns - since_ns) / rows}
            conn.execute(FILL, named)
            said = time.perf_counter() - began
            print(f"\r{last + 1:,} rows, {said:.0f} s", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        conn.execute("vacuum analyze exchange, cost_slot")


async def sum_up(store: Store, after: datetime) -> float:
    """The control plane's job, as it stands when the month ends: the latest slots are still open. Seconds that it took."""
    sums = StoreCostSums(store, lambda: after)
    began = time.perf_counter()
    while await sums.sum():
        print(f"\rsumming, {time.perf_counter() - began:.0f} s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return time.perf_counter() - began


def plain(owner_url: str, span: Span) -> tuple[dict[By, dict[str, CostLine]], float, float]:
    """Every dimension's lines from the rows alone, and how long these took: four dimensions at once, and by model."""
    named = {"since": span.since_unix_ns, "until": span.until_unix_ns, "since_at": span.since, "until_at": span.until}
    lines: dict[By, dict[str, CostLine]] = {by: {} for by in By}
    with psycopg.connect(owner_url, options="-c search_path=shipworthy,public") as conn:
        began = time.perf_counter()
        for bits, name, *figures in conn.execute(PLAIN, named):
            lines[DIMENSION_OF[bits]][name] = _line(name, figures)
        between = time.perf_counter()
        for name, *figures in conn.execute(PLAIN_BY_MODEL, named):
            lines[By.MODEL][name] = _line(name, figures)
        return lines, between - began, time.perf_counter() - between


def _line(name: str, figures: list[int | None]) -> CostLine:
    return CostLine(tenant=TENANT, name=name, **dict(zip(FIGURES, (int(figure or 0) for figure in figures), strict=True)))


async def report(exchanges: StoreExchanges, scope: str, by: By, span: Span) -> tuple[dict[str, CostLine], list[float]]:
    """Its lines, and how long each of a few times took."""
    asked = CostAsked(by=by, since_unix_ns=span.since_unix_ns, until_unix_ns=span.until_unix_ns)
    times = []
    for _ in range(ASKED_TIMES):
        began = time.perf_counter()
        lines = await exchanges.cost(scope, asked)
        times.append(time.perf_counter() - began)
    return {line.name: line for line in lines}, times


def spans(month: datetime, after: datetime) -> list[Asked]:
    berlin, kolkata = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")
    in_berlin = Span(month.replace(tzinfo=berlin), after.replace(tzinfo=berlin))
    in_kolkata = Span(month.replace(tzinfo=kolkata), after.replace(tzinfo=kolkata))
    ragged = Span(
        month + timedelta(days=2, hours=10, minutes=17, seconds=23, microseconds=456_789),
        after - timedelta(days=1, hours=4, minutes=18, seconds=52, microseconds=1),
    )
    return [
        Asked("the month, UTC", Span(month, after)),
        Asked("the month, Europe/Berlin", in_berlin),
        Asked("the month, Asia/Kolkata", in_kolkata),
        Asked("to the microsecond", ragged),
    ]


async def measure(url: str, owner_url: str, month: datetime, after: datetime) -> bool:
    """Prints the table; whether every report was equal to its rows and within the goal."""
    fine = True
    async with Store(url) as store:
        took = await sum_up(store, after)
        print(f"\nSummed by the job in {took:.0f} s. Reports as the tenant asks, seconds (median of {ASKED_TIMES}):\n")
        print("| span | by | lines | first | median | equal to the rows |\n|---|---|---|---|---|---|")
        exchanges = StoreExchanges(store, Vault(Keyring((Kek("k", bytes(32)),), bytes(32))))
        said = []
        for asked in spans(month, after):
            expected, four_s, model_s = await asyncio.to_thread(plain, owner_url, asked.span)
            said.append(f"{asked.words}: {four_s:.1f} s for four dimensions at once, {model_s:.1f} s by model")
            for by in By:
                lines, times = await report(exchanges, TENANT, by, asked.span)
                same = lines == expected[by] and lines == (await report(exchanges, EVERY_TENANT, by, asked.span))[0]
                median = statistics.median(times)
                fine = fine and same and median < GOAL_S
                equal = f"yes, {total_of(list(lines.values()), TENANT).charged_nano:,} nano" if same else "NO"
                print(f"| {asked.words} | {by} | {len(lines):,} | {times[0]:.3f} | {median:.3f} | {equal} |", flush=True)
        print("\nThe same from the rows alone:\n" + "\n".join(f"- {line}" for line in said))
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--principals", type=int, default=10_000)
    said = parser.parse_args()
    after = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    month = (after - timedelta(days=1)).replace(day=1)
    print(f"{said.rows:,} rows of one tenant in {month:%B %Y}, of {said.principals:,} principals")
    with cluster() as (url, owner_url):
        fill(owner_url, month, after, said.rows, said.principals)
        fine = asyncio.run(measure(url, owner_url, month, after))
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()

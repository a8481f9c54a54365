"""Where a request's time goes: the steps of the record's rows, stage by stage."""

from __future__ import annotations

import psycopg
from msgspec import Struct

STEPS = """
with taken as (
  select duration_ns, steps from exchange
  where arrived_unix_ns between %(since)s and %(until)s and stream = %(stream)s and outcome = 'served'
), stepped as (
  select step ->> 'stage' as stage, (step ->> 'start_ns')::bigint as start_ns, (step ->> 'duration_ns')::bigint as ns
  from taken cross join lateral jsonb_array_elements(steps) step
  union all
  select '', 9223372036854775807,
         duration_ns - (select coalesce(sum((step ->> 'duration_ns')::bigint), 0) from jsonb_array_elements(steps) step)
  from taken
)
select stage, count(*), percentile_cont(0.5) within group (order by ns), percentile_cont(0.99) within group (order by ns)
from stepped group by stage order by percentile_cont(0.5) within group (order by start_ns)
"""
BETWEEN = "between the stages"


class StepTime(Struct):
    """One stage over many requests."""

    stage: str
    requests: int
    p50_us: float
    p99_us: float


def steps(conninfo: str, window_ns: tuple[int, int], *, stream: bool) -> list[StepTime]:
    """In the order of the path; last what no stage took."""
    since, until = window_ns
    with psycopg.connect(conninfo) as conn:
        rows = conn.execute(STEPS, {"since": since, "until": until, "stream": stream}).fetchall()
    return [StepTime(stage or BETWEEN, count, p50 / 1e3, p99 / 1e3) for stage, count, p50, p99 in rows]

-- What was spent. As shipworthy_app row-level security gives one tenant, as shipworthy_operator it gives every one.

-- name: cost — counts, tokens and money by one dimension, in one snapshot. Whole hours and longer units are read from their sums
-- (migration 0024), a unit that is not folded yet from those within it; what begins or ends within an hour, slots that are not
-- summed yet and late rows are read from the record; corrections, which have no outcome, stand beside. Lateral with `offset 0`:
-- each stretch of time is looked up by itself, whatever the statistics say.
with whole as (
  select s.*
  from unnest(%(spans)s::text[], %(begins)s::timestamptz[], %(ends)s::timestamptz[]) w(span, since, until)
  cross join lateral (
    select c.tenant, c.name, c.served, c.refused, c.cut, c.failed, c.abandoned, c.input_tokens, c.output_tokens, c.charged_nano,
           c.overrun_nano, 0::numeric as corrected_nano
    from cost_sum c
    where (%(tenant)s = '' or c.tenant = %(tenant)s) and c.dimension = %(by)s and c.span = w.span
      and c.at >= w.since and c.at < w.until and c.parts > 0 offset 0) s
), unfolded as (
  select s.*
  from unnest(%(units)s::text[], %(units_from)s::timestamptz[], %(units_until)s::timestamptz[]) w(span, since, until)
  cross join lateral (
    select u.tenant, u.at, u.ends from cost_unit u
    where (%(tenant)s = '' or u.tenant = %(tenant)s) and not u.folded and u.span = w.span
      and u.at >= w.since and u.at < w.until offset 0) u
  cross join lateral (
    select c.tenant, c.name, c.served, c.refused, c.cut, c.failed, c.abandoned, c.input_tokens, c.output_tokens, c.charged_nano,
           c.overrun_nano, 0::numeric as corrected_nano
    from cost_sum c
    where c.tenant = u.tenant and c.dimension = %(by)s and c.span = within(w.span)
      and c.at >= u.at and c.at < u.ends and c.parts > 0 offset 0) s
), ragged as (
  select e.*
  from (values (%(since)s::timestamptz, %(since_ns)s::bigint, %(hour_from)s::timestamptz, %(hour_from_ns)s::bigint),
               (%(hour_until)s, %(hour_until_ns)s, %(until)s, %(until_ns)s)) w(since, since_ns, until, until_ns)
  cross join lateral (
    select x.tenant, x.team, x.use_case, x.subject, x.model, x.outcome, x.charge_lines, x.charged_nano, x.overrun_nano
    from exchange x
    where (%(tenant)s = '' or x.tenant = %(tenant)s) and w.since_ns < w.until_ns
      and x.arrived_at >= w.since and x.arrived_unix_ns >= w.since_ns
      and x.arrived_at <= w.until and x.arrived_unix_ns < w.until_ns offset 0) e
), open as (
  select e.*
  from cost_slot o cross join lateral (
    select x.tenant, x.team, x.use_case, x.subject, x.model, x.outcome, x.charge_lines, x.charged_nano, x.overrun_nano
    from exchange x
    where x.tenant = o.tenant and x.arrived_at >= o.at and x.arrived_at < o.at + interval '5 minutes' offset 0) e
  where (%(tenant)s = '' or o.tenant = %(tenant)s) and not o.summed and o.at >= %(hour_from)s and o.at < %(hour_until)s
), late as (
  select e.*
  from cost_late l
  cross join lateral (
    select from cost_slot s where s.tenant = l.tenant and s.at = slot_of(l.arrived_at) and s.summed offset 0) s
  cross join lateral (
    select x.tenant, x.team, x.use_case, x.subject, x.model, x.outcome, x.charge_lines, x.charged_nano, x.overrun_nano
    from exchange x where x.tenant = l.tenant and x.arrived_at = l.arrived_at and x.id = l.id offset 0) e
  where (%(tenant)s = '' or l.tenant = %(tenant)s) and l.arrived_at >= %(hour_from)s and l.arrived_at < %(hour_until)s
), corrected as (
  select c.tenant, c.team, c.use_case, c.subject, c.model, '' as outcome, c.lines, c.nano, 0::bigint
  from correction c
  where (%(tenant)s = '' or c.tenant = %(tenant)s)
    and c.arrived_at >= %(since)s and c.arrived_unix_ns >= %(since_ns)s
    and c.arrived_at <= %(until)s and c.arrived_unix_ns < %(until_ns)s
), meant as (
  select * from ragged union all select * from open union all select * from late union all select * from corrected
), every as (
  select * from whole union all select * from unfolded
  union all
  select e.tenant, {name}, p.served, p.refused, p.cut, p.failed, p.abandoned, p.input_tokens, p.output_tokens, p.charged_nano,
         p.overrun_nano, case e.outcome when '' then p.charged_nano else 0 end
  from meant e
  cross join lateral parts_of(e.model, e.outcome, e.charge_lines, e.charged_nano, e.overrun_nano) p
)
select tenant, name, sum(served + refused + cut + failed + abandoned), sum(served), sum(refused), sum(cut), sum(failed),
       sum(abandoned), sum(input_tokens), sum(output_tokens), sum(charged_nano), sum(overrun_nano),
       sum(corrected_nano)
from every
group by tenant, name;

-- name: patience — sums over long stretches may take longer than other statements; compiling this one takes longer than running it
select set_config('statement_timeout', %(ms)s, true), set_config('jit', 'off', true), set_config('work_mem', '32MB', true);

-- name: sum — as shipworthy_operator: a bounded piece of what is recorded and not summed yet; whether there is more
select sum_costs(%(seconds)s, p_now => %(now)s::timestamptz);

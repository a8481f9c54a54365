-- The books checked: counters against what is behind them, and the record as a provider's export would count it. Run as
-- shipworthy_operator; each block is one statement, so one snapshot: on a living system nothing is seen half done.

-- name: balance — what every counter says beside the sum of what is behind it; totals, and what differs.
-- Rows know their levels but not which of two overlapping periods of one level they were charged to (a budget's zone was changed
-- in the middle): such periods are compared together. Rows are summed by quarters of an hour first: every period of every zone
-- begins and ends on one.
with asked as (
  select %(tenant)s::text as tenant, coalesce(%(since)s::timestamptz, '-infinity') as since,
         (select m.applied_at + interval '1 hour' from migration m where m.number = %(levels_since)s) as levels_since
), counters as (
  select n.tenant, n.key || '@' || n.period as level, n.period_start as begins,
         coalesce(n.period_end, lead(n.period_start) over w, n.period_start + ('1 ' || n.period)::interval) as ends,
         n.charged_nano, n.held_nano, n.leased_nano, n.suspended_nano
  from counter n, asked a where a.tenant = '' or n.tenant = a.tenant
  window w as (partition by n.tenant, n.key, n.period order by n.period_start)
), apart as (
  select c.*, c.begins < max(c.ends) over (partition by tenant, level order by begins rows between unbounded preceding
                                           and 1 preceding) as reached
  from counters c
), numbered as (
  select a.*, count(*) filter (where reached is not true) over (partition by tenant, level order by begins) as number
  from apart a
), spans as (
  select tenant, level, min(begins) as begins, max(ends) as ends, sum(charged_nano) as charged
  from numbered group by tenant, level, number
), scanned as (
  select coalesce((select min(s.begins) from spans s, asked a where s.ends > a.since), '-infinity') as since
), spent as (
  select e.tenant, l.level collate "C" as level, date_bin('15 minutes', e.arrived_at, timestamptz '2000-01-01 00:00+00') as at,
         sum(e.charged_nano) as nano, count(*) as exchanges, 0::bigint as corrections
  from scanned s, asked a, exchange e cross join unnest(e.levels) l(level)
  where (a.tenant = '' or e.tenant = a.tenant) and e.arrived_at >= s.since and e.charged_nano > 0
  group by 1, 2, 3
  union all
  select c.tenant, l.level collate "C", date_bin('15 minutes', c.arrived_at, timestamptz '2000-01-01 00:00+00'), sum(c.nano), 0,
         count(*)
  from scanned s, asked a, correction c cross join unnest(c.levels) l(level)
  where (a.tenant = '' or c.tenant = a.tenant) and c.arrived_at >= s.since
  group by 1, 2, 3
), laid as (  -- every quarter after the latest span that had begun by then
  select tenant, level, at, ends, nano, exchanges, corrections, spanned,
         max(case when spanned then at end) over w as begins, max(ends) over w as until
  from (select tenant, level, begins as at, ends, true as spanned, 0::numeric as nano, 0::numeric as exchanges,
               0::numeric as corrections from spans
        union all
        select tenant, level, at, null, false, nano, exchanges, corrections from spent) each
  window w as (partition by tenant, level order by at, spanned desc rows unbounded preceding)
), summed as (
  select tenant, level, case when at < until then begins end as begins, sum(nano) as nano, sum(exchanges) as exchanges,
         sum(corrections) as corrections, max(at) as latest
  from laid where not spanned group by 1, 2, 3
), unlevelled as (
  select e.tenant, min(e.arrived_at) as earliest, max(e.arrived_at) as latest, sum(e.charged_nano) as nano, count(*) as exchanges
  from asked a, exchange e
  where (a.tenant = '' or e.tenant = a.tenant) and e.levels = '{}' and e.charged_nano > 0 and e.recorded_at < a.levels_since
    and e.arrived_at < (select b.levels_since + interval '1 day' from asked b)  -- whatever the clock of the worker
  group by 1
), charges as (
  select coalesce(s.tenant, m.tenant) as tenant, coalesce(s.level, m.level) as level, s.begins, s.ends, s.charged as counter,
         coalesce(m.nano, 0) as behind, coalesce(m.exchanges, 0) as exchanges, coalesce(m.corrections, 0) as corrections,
         m.latest
  from spans s full join summed m on m.tenant = s.tenant and m.level = s.level and m.begins = s.begins
), behind as (  -- of holds and leases, by the very period that they name
  select h.tenant, c.key collate "C" || '@' || c.period collate "C" as level, c.period_start as begins, 'held' as what, h.amount_nano as nano
  from asked a, hold h cross join jsonb_to_recordset(h.claims) c(key text, cap bigint, period text, period_start timestamptz)
  where (a.tenant = '' or h.tenant = a.tenant) and h.lease_id is null and c.cap >= 0
  union all
  select l.tenant, c.key collate "C" || '@' || c.period collate "C", c.period_start, case when l.suspended_at is null then 'leased' else 'suspended' end,
         l.nano
  from asked a, lease l cross join jsonb_to_recordset(l.claims) c(key text, cap bigint, period text, period_start timestamptz)
  where (a.tenant = '' or l.tenant = a.tenant) and c.cap >= 0
), ahead as (
  select coalesce(n.tenant, b.tenant) as tenant, coalesce(n.level, b.level) as level, coalesce(n.begins, b.begins) as begins,
         n.ends, coalesce(n.what, b.what) as what, n.nano as counter, coalesce(b.nano, 0) as behind
  from (select tenant, level, begins, ends, f.what, f.nano from counters
        cross join lateral (values ('held', held_nano), ('leased', leased_nano), ('suspended', suspended_nano)) f(what, nano)) n
  full join (select tenant, level, begins, what, sum(nano) as nano from behind group by 1, 2, 3, 4) b
    on b.tenant = n.tenant and b.level = n.level and b.begins = n.begins and b.what = n.what
), places as (
  select coalesce(p.tenant, b.tenant) as tenant, coalesce(p.key, b.key) as level, coalesce(p.what, b.what) as what,
         p.number as counter, coalesce(b.number, 0) as behind
  from (select t.tenant, t.key, f.what, f.number from asked a, pace t
        cross join lateral (values ('in flight', t.in_flight), ('leased requests', t.leased_requests),
                                   ('leased tokens', t.leased_tokens), ('leased places', t.leased_places)) f(what, number)
        where a.tenant = '' or t.tenant = a.tenant) p
  full join (
    select tenant, key, what, sum(number) as number
    from (
      select h.tenant, c.key collate "C" as key, 'in flight' as what, 1::bigint as number
      from asked a, hold h cross join jsonb_to_recordset(h.claims) c(key text, requests int, tokens bigint, concurrent int)
      where (a.tenant = '' or h.tenant = a.tenant) and h.lease_id is null and greatest(c.requests, c.tokens, c.concurrent) > 0
      union all
      select l.tenant, c.key collate "C", f.what, f.number
      from asked a, lease l cross join jsonb_to_recordset(l.claims) c(key text, requests int, tokens bigint, concurrent int)
      cross join lateral (values ('leased requests', l.requests), ('leased tokens', l.tokens), ('leased places', l.places))
        f(what, number)
      where (a.tenant = '' or l.tenant = a.tenant) and greatest(c.requests, c.tokens, c.concurrent) > 0
    ) each
    group by 1, 2, 3
  ) b on b.tenant = p.tenant and b.key = p.key and b.what = p.what
), differing as (
  select c.tenant, c.level, 'charged' as what, c.begins, c.ends, c.counter, c.behind, c.exchanges,
         case when c.counter <= c.behind or c.counter is null then ''
              when c.begins <= u.latest and c.ends > u.earliest and c.counter - c.behind <= u.nano then 'levels'
              when c.begins < %(rows_since)s::timestamptz then 'retention' else '' end as excuse
  from asked a, charges c left join unlevelled u on u.tenant = c.tenant
  where c.counter is distinct from c.behind and coalesce(c.ends, c.latest) > a.since
    and not (c.counter is null and c.behind = 0)
  union all
  select h.tenant, h.level, h.what, h.begins, h.ends, h.counter, h.behind, 0, '' from ahead h
  where h.counter is distinct from h.behind and not (h.counter is null and h.behind = 0)
  union all
  select p.tenant, p.level, p.what, null, null, p.counter, p.behind, 0, '' from places p
  where p.counter is distinct from p.behind and not (p.counter is null and p.behind = 0)
)
select (select count(*) from counters) as counters,
       (select count(distinct (tenant, level)) from places) as paces,
       (select coalesce(sum(exchanges), 0)::bigint from charges) as exchanges,
       (select coalesce(sum(behind), 0)::bigint from charges) as charged_nano,
       (select coalesce(sum(corrections), 0)::bigint from charges) as corrections,
       (select count(*) from asked a, hold h where a.tenant = '' or h.tenant = a.tenant) as holds,
       (select count(*) from asked a, lease l where a.tenant = '' or l.tenant = a.tenant) as leases,
       (select coalesce(sum(exchanges), 0)::bigint from unlevelled) as unlevelled,
       (select coalesce(sum(nano), 0)::bigint from unlevelled) as unlevelled_nano,
       (select coalesce(jsonb_agg(to_jsonb(d)), '[]')
        from (select * from differing order by excuse, tenant, begins, level, what limit %(limit)s) d) as differences;

-- name: used — one provider's attempts by UTC day and upstream model, and what corrections added
with asked as (
  select %(provider)s::text as provider, jsonb_build_array(jsonb_build_object('provider', %(provider)s::text)) as attempted
), attempts as (
  select (e.arrived_unix_ns + (t ->> 'started_ns')::bigint) / 86400000000000 as day, t ->> 'upstream' as upstream,
         t ->> 'failure' <> '' as failed, (t ->> 'first_token_ns')::bigint > 0 as answered, f.*
  from asked a, exchange e cross join jsonb_array_elements(e.attempts) t
  cross join lateral (
    select count(*) as lines, bool_or(line ->> 'basis' <> 'reported') as counted,
           sum((line ->> 'quantity')::bigint) filter (where line ->> 'component' = any(%(input)s::text[])) as input,
           sum((line ->> 'quantity')::bigint) filter (where line ->> 'component' = %(cached)s) as cached,
           sum((line ->> 'quantity')::bigint) filter (where line ->> 'component' = any(%(output)s::text[])) as output,
           sum((line ->> 'amount_nano')::bigint) as nano,
           sum((line ->> 'amount_nano')::numeric * 1000
               - (line ->> 'quantity')::numeric * (line ->> 'unit_price_pico')::numeric) as rounding
    from jsonb_array_elements(e.charge_lines) line where line -> 'attempt' = t -> 'number'
  ) f
  where e.arrived_at >= %(from)s and e.arrived_at < %(to)s and e.attempts @> a.attempted and t ->> 'provider' = a.provider
), corrected as (
  select c.arrived_unix_ns / 86400000000000 as day, line ->> 'upstream' as upstream,
         count(distinct c.exchange_id) filter (where not e.attempts @> a.attempted) as requests,
         sum((line ->> 'quantity')::bigint) filter (where line ->> 'component' = any(%(input)s::text[])) as input,
         sum((line ->> 'quantity')::bigint) filter (where line ->> 'component' = %(cached)s) as cached,
         sum((line ->> 'quantity')::bigint) filter (where line ->> 'component' = any(%(output)s::text[])) as output,
         sum((line ->> 'amount_nano')::bigint) as nano
  from asked a, correction c
  join exchange e on e.tenant = c.tenant and e.arrived_at = c.arrived_at and e.id = c.exchange_id
  cross join jsonb_array_elements(c.lines) line
  where c.arrived_at >= %(from)s and c.arrived_at < %(to)s and c.provider = a.provider and line ->> 'upstream' <> ''
  group by 1, 2
), parts as (
  select day, upstream, count(*) as requests, sum(input) as input, sum(cached) as cached, sum(output) as output, sum(nano) as nano,
         sum(rounding) as rounding, count(*) filter (where failed) as failed_requests,
         sum(input) filter (where failed) as failed_input, sum(output) filter (where failed) as failed_output,
         sum(nano) filter (where failed) as failed_nano, count(*) filter (where counted) as counted
  from attempts where answered or lines > 0
  group by 1, 2
  union all
  select day, upstream, requests, input, cached, output, nano, 0, 0, 0, 0, 0, 0 from corrected
)
select day, upstream, sum(requests), sum(input), sum(cached), sum(output), sum(nano), sum(rounding), sum(failed_requests),
       sum(failed_input), sum(failed_output), sum(failed_nano), sum(counted)
from parts where day >= %(first_day)s and day <= %(last_day)s
group by 1, 2 order by 1, 2
limit %(limit)s;

-- name: presumed — by UTC day, exchanges whose worker died and that nobody has corrected since
select e.arrived_unix_ns / 86400000000000 as day, count(*), sum(e.charged_nano)
from exchange e
where e.arrived_at >= %(from)s and e.arrived_at < %(to)s and e.flags @> jsonb '["presumed"]'
  and not exists (select from correction c where c.tenant = e.tenant and c.exchange_id = e.id)
group by 1 order by 1
limit %(limit)s;

-- name: patience — sums over the whole record may take longer than other statements; compiling them takes longer than it saves
select set_config('statement_timeout', %(ms)s, true), set_config('jit', 'off', true), set_config('work_mem', '64MB', true);

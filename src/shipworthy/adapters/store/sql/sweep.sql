-- Run as shipworthy_operator: the one reader across tenants. Settlement itself is the recorder's (recorder.sql).

-- name: orphans — holds that nobody will settle; of leased exchanges those whose worker is silent, and gone as far as is known
-- Intents are not written again when a hold is trimmed: together they cost no more than their lease has left.
with found as materialized (
  select h.*, coalesce(l.suspended_at, 'infinity') as suspended_at, coalesce(l.nano, 0) as left_nano from hold h
  left join lease l on l.tenant = h.tenant and l.id = h.lease_id
  where h.expires_at < coalesce(%(now)s::timestamptz, clock_timestamp()) or h.worker = any(%(dead)s::text[])
     or (h.lease_id is not null and (l.id is null or l.suspended_at is not null))
), silent as materialized (
  select f.worker from (select distinct f.worker from found f where f.lease_id is not null) f where is_silent(f.worker)
)
select tenant, id, arrived_unix_ns, claims::text,
       case when lease_id is null
              or not exists (select from jsonb_populate_recordset(null::claim, f.claims) c where c.cap >= 0) then amount_nano
            else least(amount_nano, greatest(0, left_nano - (
              select coalesce(sum(b.amount_nano), 0) from hold b
              where b.tenant = f.tenant and b.lease_id = f.lease_id and b.id < f.id)))::bigint
       end as amount_nano, tokens, worker, intent, lease_id
from found f
where f.lease_id is null
   or (f.worker in (select s.worker from silent s)
       and (f.worker = any(%(dead)s::text[])
            or f.suspended_at < coalesce(%(now)s::timestamptz, clock_timestamp()) - make_interval(secs => %(grace_s)s)
            or f.expires_at < coalesce(%(now)s::timestamptz, clock_timestamp())))
order by tenant, id limit %(limit)s;

-- name: strays — leases past their expiry, or of a worker that is dead
with found as materialized (
  select l.* from lease l
  where l.expires_at < coalesce(%(now)s::timestamptz, clock_timestamp()) or l.worker = any(%(dead)s::text[])
     or l.suspended_at is not null
  order by l.tenant, l.id limit %(limit)s
), silent as materialized (
  select f.worker from (select distinct f.worker from found f) f where is_silent(f.worker)
)
select f.tenant, f.id, f.worker,
       extract(epoch from coalesce(%(now)s::timestamptz, clock_timestamp()) - f.suspended_at)::float8 as suspended_s, f.ended,
       not exists (select from hold h where h.tenant = f.tenant and h.lease_id = f.id) as settled,
       f.worker in (select s.worker from silent s) as silent
from found f order by f.tenant, f.id;

-- name: suspend — as the recorder
select suspend(%(tenant)s, %(leases)s::uuid[], %(now)s::timestamptz);

-- name: bury — as the recorder
select bury(%(tenant)s, %(leases)s::uuid[], %(now)s::timestamptz);

-- name: holders — whose holds and leases there are
select worker from hold union select worker from lease order by worker limit %(limit)s;

-- name: patience — what was summed is taken out of the sums first, which may take longer than other statements
select set_config('statement_timeout', %(ms)s, true);

-- name: expire — what is past its retention, a bounded number of rows and every whole month
select bodies, exchanges, acts, months
from expire(%(rows_before)s, %(bodies_before)s, %(limit)s::int), expire_corrections(%(rows_before)s, %(limit)s::int),
     expire_counters(%(rows_before)s, %(limit)s::int);

-- name: prepare_partitions — the record's tables for the months to come
select partition, state from prepare_partitions(%(months_ahead)s::int);

-- name: mend_partitions — one month out of a default partition into a table of its own
select partition, state from mend_partitions(%(months_ahead)s::int, %(bytes_max)s::bigint);

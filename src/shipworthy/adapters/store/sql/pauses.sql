-- Pauses, as the app on behalf of one tenant; changes also raise pause_change and notify (trigger). The blocks of the watch run
-- as the operator, who sees every tenant.

-- name: changed — the number of the last change and, where it is not the known one, every pause that stands
select version, tenant, principal, session, at, watched from active_pauses(%(known)s, %(limit)s::int);

-- name: standing — how many of the tenant's pauses stand
select count(*) from pause where tenant = %(tenant)s and released_at is null;

-- name: pause — a new pause, unless one of the same stands
insert into pause (tenant, id, kind, principal, session, reason, by)
values (%(tenant)s, %(id)s, %(kind)s, %(principal)s, %(session)s, %(reason)s, %(by)s)
on conflict (tenant, principal, session) where released_at is null do nothing
returning at;

-- name: release — ends a pause, once
update pause set released_at = clock_timestamp(), released_by = %(by)s, released_because = %(because)s
where tenant = %(tenant)s and id = %(id)s and released_at is null
returning tenant, id, kind, principal, session, reason, at, by, released_at, released_by, released_because;

-- name: active — the pauses that stand, newest first
select tenant, id, kind, principal, session, reason, at, by, released_at, released_by, released_because
from pause where released_at is null
order by at desc, id limit %(limit)s;

-- name: fold — a stretch of the record into the slots
select folded_to, looked_at, behind from fold_spend(
  %(tenants)s::text[], %(minutes)s::int[], %(days)s::int[], %(seconds)s::int, %(now)s::timestamptz);

-- name: forget — what nobody watches any more
select forget_spend(%(now)s::timestamptz);

-- name: suspects — who spent more than the least in the running window, sessions first, the dearest of each kind
with watched as materialized (
  select w.tenant, w.minutes, w.least_nano, %(now)s::timestamptz - make_interval(mins => w.minutes) as since
  from unnest(%(tenants)s::text[], %(minutes)s::int[], %(least)s::bigint[]) as w(tenant, minutes, least_nano)
),
fresh as materialized (
  select e.tenant, date_bin(make_interval(secs => w.minutes * 10), e.recorded_at, timestamptz 'epoch') as slot_at,
         spender(e.issuer, e.subject, e.actor, e.key_id) as principal, e.session, sum(e.charged_nano) as nano
  from watched w join exchange e on e.tenant = w.tenant
  where e.recorded_at > %(folded_to)s::timestamptz and e.recorded_at <= %(now)s::timestamptz
    and e.charged_nano > 0 and not e.flags ? 'presumed'
  group by 1, 2, 3, 4
),
counted as (
  select s.tenant, s.slot_at, s.principal, s.session, s.nano
  from watched w join spend_slot s on s.tenant = w.tenant and s.slot_at >= w.since
  union all
  select f.tenant, f.slot_at, f.principal, f.session, f.nano
  from watched w join fresh f on f.tenant = w.tenant and f.slot_at >= w.since
),
spent as materialized (
  select c.tenant, c.principal, c.session, sum(c.nano) as nano
  from counted c
  where not exists (
    select from pause p
    where p.tenant = c.tenant and p.principal = c.principal and p.session in ('', c.session)
      and (p.released_at is null or p.released_at > c.slot_at))
  group by 1, 2, 3
),
spenders as (
  select tenant, 'session' as kind, principal, session, nano from spent where session <> ''
  union all
  select tenant, 'principal', principal, '', sum(nano) from spent group by 1, 2, 3
)
select tenant, kind, principal, session, nano
from (
  select s.tenant, s.kind, s.principal, s.session, s.nano::bigint as nano,
         row_number() over (partition by s.tenant, s.kind order by s.nano desc, s.principal, s.session) as place
  from spenders s join watched w on w.tenant = s.tenant
  where s.nano > w.least_nano * w.minutes) dearest
where place <= %(limit)s
order by tenant, kind desc, nano desc, principal, session;

-- name: normals — the median rate of each name over its windows that ended before the running one; under no name, of its kind
select w.tenant, w.kind, w.principal, w.session, past.windows, coalesce(past.rate, 0)
from unnest(
  %(tenants)s::text[], %(kinds)s::text[], %(principals)s::text[], %(sessions)s::text[], %(minutes)s::int[], %(days)s::int[]
) as w(tenant, kind, principal, session, minutes, days)
cross join lateral (
  select count(*) as windows, percentile_disc(0.5) within group (order by h.nano_per_min) as rate
  from spend_window h
  where h.tenant = w.tenant and h.kind = w.kind and h.principal = w.principal and h.session = w.session
    and h.began >= %(now)s::timestamptz - make_interval(days => w.days)
    and h.began <= %(now)s::timestamptz - make_interval(mins => w.minutes + h.minutes)
    and not exists (
      select from pause p
      where p.tenant = h.tenant and p.principal = h.principal and p.session in ('', h.session)
        and p.at > h.began - make_interval(mins => h.minutes) and p.at < h.began + make_interval(mins => 2 * h.minutes))
) past;

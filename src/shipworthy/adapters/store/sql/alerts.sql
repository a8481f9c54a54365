-- Budget alerts and their outbox. All but `page` is run by the control plane's job as shipworthy_operator, in autocommit.

-- name: raise_passed — thresholds that are passed and were not, in order; and what somebody began to say and did not end
with clock as materialized (
  select coalesce(%(now)s::timestamptz, clock_timestamp()) as now
), watched as materialized (
  select * from unnest(
    %(tenants)s::text[], %(keys)s::text[], %(periods)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[],
    %(caps)s::bigint[], %(permilles)s::int[], %(at_nanos)s::bigint[])
  as w(tenant, key, period, period_start, period_end, cap_nano, permille, at_nano)
), end_users as materialized (
  select c.key, c.charged_nano from counter c
  where c.tenant = %(page_tenant)s and c.period = %(page_period)s and c.period_start = %(page_start)s
    and c.key > %(page_after)s and c.key >= 'end_user=' and c.key < 'end_user>'
  order by c.key limit %(page_max)s
), passed as (
  select w.tenant, w.key, w.period, w.period_start, w.period_end, w.cap_nano, w.permille, c.charged_nano
  from watched w
  cross join lateral (  -- the limit makes it one look at the primary key for each, however many counters there are
    select n.charged_nano from counter n
    where n.tenant = w.tenant and n.key = w.key and n.period = w.period and n.period_start = w.period_start limit 1) c
  where c.charged_nano >= w.at_nano
  union all
  select w.tenant, u.key, w.period, w.period_start, w.period_end, w.cap_nano, w.permille, u.charged_nano
  from watched w
  join end_users u on u.charged_nano >= w.at_nano
  where w.key = 'end_user=' and w.tenant = %(page_tenant)s and w.period = %(page_period)s
    and w.period_start = %(page_start)s
), fresh as (
  insert into alert (tenant, key, period, period_start, period_end, permille, cap_nano, charged_nano, raised_at, unsaid_until,
                     delivery, due_at)
  select p.tenant, p.key, p.period, p.period_start, p.period_end, p.permille, p.cap_nano, p.charged_nano, clock.now,
         clock.now + make_interval(secs => %(say_s)s), %(delivery)s, clock.now
  from passed p, clock
  where not exists (
    select from alert a
    where a.tenant = p.tenant and a.key = p.key and a.period = p.period and a.period_start = p.period_start
      and a.cap_nano = p.cap_nano and a.permille = p.permille)
  order by p.tenant, p.key, p.period, p.period_start, p.cap_nano, p.permille
  limit %(limit)s
  on conflict do nothing
  returning {columns}
), unsaid as (
  update alert a set unsaid_until = clock.now + make_interval(secs => %(say_s)s)
  from clock, (
    select o.tenant, o.id from alert o, clock
    where o.unsaid_until <= clock.now
    order by o.unsaid_until limit %(limit)s for update of o skip locked) old
  where a.tenant = old.tenant and a.id = old.id
  returning {columns_of_a}
)
select page.last, page.count, {columns}
from (select max(key) as last, count(*) as count from end_users) page
left join (select * from fresh union all select * from unsaid) said on true
order by said.number;

-- name: patience — how long a question may take, in its transaction
select set_config('statement_timeout', %(ms)s, true);

-- name: pace — what one level was charged lately, and in how many seconds: within an hour and a number of the tenant's exchanges
with clock as materialized (
  select coalesce(%(now)s::timestamptz, clock_timestamp()) as now
), lately as (
  select e.arrived_at, e.team, e.use_case, e.end_user, e.charged_nano
  from exchange e
  where e.tenant = %(tenant)s and e.arrived_at <= (select now from clock)
    and e.arrived_at > (select now from clock) - make_interval(secs => %(window_s)s)
  order by e.arrived_at desc limit %(limit)s
)
select coalesce(sum(charged_nano) filter (
         where (%(team)s = '' or team = %(team)s) and (%(use_case)s = '' or use_case = %(use_case)s)
           and (%(end_user)s = '' or end_user = %(end_user)s)), 0)::bigint,
       coalesce(extract(epoch from (select now from clock) - min(arrived_at)), 0)::float8
from lately;

-- name: said — the observation was made; from now on it may be delivered
update alert set unsaid_until = null, exhausted_at = %(exhausted_at)s
where tenant = %(tenant)s and id = %(id)s and unsaid_until is not null;

-- name: claim — deliveries that are due, each for one control plane at a time; earlier thresholds of a budget before later ones
with clock as materialized (
  select coalesce(%(now)s::timestamptz, clock_timestamp()) as now
), due as materialized (
  select d.tenant, d.id from alert d, clock
  where d.delivery = 'pending' and d.unsaid_until is null and d.due_at <= clock.now
    and (d.leased_until is null or d.leased_until <= clock.now)
    and not exists (
      select from alert e
      where e.delivery = 'pending' and e.tenant = d.tenant and e.key = d.key and e.period = d.period
        and e.period_start = d.period_start and e.cap_nano = d.cap_nano and e.permille < d.permille
        and (e.unsaid_until is not null or e.due_at <= clock.now or e.leased_until > clock.now))
  order by d.due_at, d.number limit %(limit)s for update of d skip locked
)
update alert a set tries = a.tries + 1, leased_until = clock.now + make_interval(secs => %(lease_s)s)
from due, clock
where a.tenant = due.tenant and a.id = due.id
returning {columns_of_a};

-- name: mark — how a try ended; that it was delivered stands whoever's turn it was, all else only while the turn is ours
update alert set
  delivery = %(delivery)s, leased_until = null, last_status = %(status)s, last_reason = %(reason)s,
  due_at = coalesce(%(now)s::timestamptz, clock_timestamp()) + make_interval(secs => %(again_s)s),
  ended_at = case when %(delivery)s <> 'pending' then coalesce(%(now)s::timestamptz, clock_timestamp()) end
where tenant = %(tenant)s and id = %(id)s and delivery = 'pending'
  and (tries = %(tries)s or %(delivery)s = 'delivered');

-- name: page — alerts of one tenant or of every one, newest first
select {columns} from alert
where (%(tenant)s = '' or tenant = %(tenant)s)
order by number desc limit %(limit)s;

-- name: forget — some of what is past its retention; an alert of a running period stays, or it would be raised again
delete from alert where (tenant, id) in (
  select tenant, id from alert where period_end < %(before)s order by number limit %(limit)s);

-- Pauses and how every worker learns of one; and what the runaway watch keeps of who spent how much, when.

create table pause (
  tenant           text not null check (tenant <> ''),
  id               uuid not null,
  kind             text not null check (kind in ('session', 'principal')),
  principal        text collate "C" not null check (principal <> ''),  -- as spender() names it
  session          text collate "C" not null check ((kind = 'session') = (session <> '')),  -- its clients chose it
  reason           text not null,
  at               timestamptz not null default clock_timestamp(),
  by               text not null,                -- 'runaway' = the watch, else whose act it was
  released_at      timestamptz,
  released_by      text,
  released_because text,
  primary key (tenant, id),
  check (num_nulls(released_at, released_by, released_because) in (0, 3))
);

create unique index pause_active on pause (tenant, principal, session) where released_at is null;
create index pause_spender on pause (tenant, principal, at);

-- One row that every change of a pause raises, in the same transaction: see key_change in 0020.
create table pause_change (
  one     boolean primary key default true check (one),
  version bigint not null
);

insert into pause_change (version) values (1);

alter table pause enable row level security, force row level security;
alter table pause_change enable row level security, force row level security;

grant select, insert on pause to shipworthy_app;
grant update (released_at, released_by, released_because) on pause to shipworthy_app;
grant select, delete on pause to shipworthy_operator;

create policy pause_app on pause for all to shipworthy_app
  using (tenant = nullif((select current_setting('app.tenant', true)), ''))
  with check (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy pause_operator_select on pause for select to shipworthy_operator using (true);
create policy pause_operator_delete on pause for delete to shipworthy_operator using (released_at is not null);
create policy pause_owner on pause for select to current_user using (true);
create policy pause_change_owner on pause_change for all to current_user using (true) with check (true);

create function note_pause_change() returns trigger
language plpgsql security definer
set search_path = shipworthy, pg_temp
as $$
begin
  update pause_change set version = version + 1;
  notify shipworthy_pauses;
  return null;
end $$;

revoke execute on function note_pause_change from public;

create trigger pause_changed after insert or update on pause
  for each statement execute function note_pause_change();

-- What a worker refuses, of every tenant at once: who is paused since when, and neither why nor anything else. One snapshot, so
-- that the number and the pauses belong together. At the number that the caller knows already there is nothing more to say.
create function active_pauses(p_known bigint, p_limit int)
returns table (version bigint, tenant text, principal text, session text, at timestamptz, watched boolean)
language sql stable security definer
set search_path = shipworthy, pg_temp
as $$
  select c.version, p.tenant, p.principal, p.session, p.at, p.by = 'runaway'
  from pause_change c left join pause p on c.version <> p_known and p.released_at is null
  order by p.at limit p_limit
$$;

revoke execute on function active_pauses from public;
grant execute on function active_pauses to shipworthy_app;

-- Who spends: a service key by its id; anyone else by issuer and subject, also when a service acts for them. An issuer's URL holds
-- no '#', so that the name is unambiguous; model.pause.spender says the same.
create function spender(p_issuer text, p_subject text, p_actor text, p_key_id text) returns text
language sql immutable parallel safe as $$
  select case when p_key_id <> '' and p_actor = '' then 'key:' || p_key_id else left(p_issuer, 512) || '#' || p_subject end
$$;

-- The record is read by when it was written, not by when a request arrived: a stream that arrived long ago spends now.
create index exchange_recorded on exchange (recorded_at) where charged_nano > 0;

-- Up to where the record is in the slots. A row's recorded_at lies before its commit, so that rows become visible out of order:
-- what was recorded by seen_at is complete once every transaction that ran then (all numbers below seen_xid) has ended.
create table spend_mark (
  one       boolean primary key default true check (one),
  folded_to timestamptz not null,
  seen_at   timestamptz not null,
  seen_xid  xid8 not null
);

insert into spend_mark (folded_to, seen_at, seen_xid)
values (clock_timestamp(), clock_timestamp(), pg_current_xact_id());

-- Spend of the last windows, in slots of a sixth of the tenant's window: few rows to add up, whatever the window.
create table spend_slot (
  tenant    text not null check (tenant <> ''),
  slot_at   timestamptz not null,
  principal text collate "C" not null,
  session   text collate "C" not null,
  nano      bigint not null check (nano > 0),
  primary key (tenant, slot_at, principal, session)
);

-- What is remembered of each whole window: the rate of who spent in it, and under no name the median of all of that kind.
create table spend_window (
  tenant       text not null check (tenant <> ''),
  kind         text not null check (kind in ('session', 'principal')),
  principal    text collate "C" not null,
  session      text collate "C" not null,
  began        timestamptz not null,
  minutes      int not null check (minutes > 0),
  nano_per_min bigint not null check (nano_per_min >= 0),
  primary key (tenant, kind, principal, session, began)
);

create index spend_window_began on spend_window (tenant, began);

do $$
declare
  name text;
begin
  foreach name in array array['spend_mark', 'spend_slot', 'spend_window'] loop
    execute format('alter table %I enable row level security, force row level security', name);
    execute format('grant select, insert, update, delete on %I to shipworthy_operator', name);
    execute format('create policy %1$s_operator on %1$I for all to shipworthy_operator using (true) with check (true)', name);
  end loop;
end $$;

-- Moves at most p_seconds of the record into the slots, and remembers the window that ends meanwhile. Exactly once: the mark moves
-- in the same transaction. No row when another control plane is at it.
create function fold_spend(p_tenants text[], p_minutes int[], p_days int[], p_seconds int, p_now timestamptz default null)
returns table (folded_to timestamptz, looked_at timestamptz, behind boolean)
language plpgsql as $$
declare
  v_mark spend_mark;
  v_now  timestamptz := coalesce(p_now, clock_timestamp());  -- before this transaction gets its number
  v_ripe timestamptz;
  v_to   timestamptz;
begin
  select * into v_mark from spend_mark for update skip locked;
  if not found then
    return;
  end if;
  -- Longer than this nothing of ours takes from a row's time to its commit: whoever keeps a transaction open is somebody else. A
  -- number from the future is another server's: the store was restored elsewhere.
  if v_mark.seen_xid <= pg_snapshot_xmin(pg_current_snapshot()) or v_now > v_mark.seen_at + interval '2 minutes'
    or v_mark.seen_xid > pg_current_xact_id()
  then
    v_ripe := v_mark.seen_at - interval '5 seconds';  -- a statement of ours takes no longer from clock to first write
    v_mark.seen_at := v_now;
    v_mark.seen_xid := pg_current_xact_id();
  end if;
  v_ripe := greatest(v_ripe, v_mark.folded_to);
  v_mark.folded_to := greatest(v_mark.folded_to, v_ripe - interval '1 hour');  -- what is older is not learned any more
  v_to := least(v_ripe, v_mark.folded_to + make_interval(secs => p_seconds));
  if v_to > v_mark.folded_to then
    perform fold_slots(p_tenants, p_minutes, v_mark.folded_to, v_to);
    perform close_windows(p_tenants, p_minutes, v_mark.folded_to, v_to);
    perform trim_spend(p_tenants, p_minutes, p_days, v_to);
  end if;
  update spend_mark m set folded_to = v_to, seen_at = v_mark.seen_at, seen_xid = v_mark.seen_xid;
  folded_to := v_to;
  looked_at := v_now;
  behind := v_to < v_ripe;
  return next;
end $$;

-- Planned anew each time: only with the two times known it is clear which index leads to few rows.
create function fold_slots(p_tenants text[], p_minutes int[], p_from timestamptz, p_to timestamptz) returns void
language plpgsql
set plan_cache_mode = force_custom_plan
as $$
begin
  insert into spend_slot (tenant, slot_at, principal, session, nano)
  select e.tenant, date_bin(make_interval(secs => w.minutes * 10), e.recorded_at, timestamptz 'epoch'),
         spender(e.issuer, e.subject, e.actor, e.key_id), e.session, sum(e.charged_nano)::bigint
  from unnest(p_tenants, p_minutes) as w(tenant, minutes)
  join exchange e on e.tenant = w.tenant
  where e.recorded_at > p_from and e.recorded_at <= p_to and e.charged_nano > 0 and not e.flags ? 'presumed'
  group by 1, 2, 3, 4
  on conflict (tenant, slot_at, principal, session) do update set nano = spend_slot.nano + excluded.nano;
end $$;

-- At most one window a tenant ends between the two, because they are a minute apart at most. Of more than a thousand spenders in
-- it a fixed sample is remembered, always the same; the others are compared with the median, which is of all. What touches a pause
-- is no part of it: the spike that led to the pause, and what was still running when it came.
create function close_windows(p_tenants text[], p_minutes int[], p_from timestamptz, p_to timestamptz) returns void
language sql as $$
  insert into spend_window (tenant, kind, principal, session, began, minutes, nano_per_min)
  with ended as materialized (
    select tenant, minutes, make_interval(mins => minutes) as lasts,
           date_bin(make_interval(mins => minutes), p_to, timestamptz 'epoch') as ends
    from unnest(p_tenants, p_minutes) as w(tenant, minutes)
  ),
  spent as materialized (
    select e.tenant, e.minutes, e.ends - e.lasts as began, s.principal, s.session, sum(s.nano)::bigint as nano
    from ended e join spend_slot s on s.tenant = e.tenant and s.slot_at >= e.ends - e.lasts and s.slot_at < e.ends
    where e.ends > p_from and not exists (
      select from pause p
      where p.tenant = s.tenant and p.principal = s.principal and p.session in ('', s.session)
        and p.at > e.ends - 2 * e.lasts and p.at < e.ends + e.lasts)
    group by e.tenant, e.minutes, e.ends, e.lasts, s.principal, s.session
  ),
  rates as materialized (
    select tenant, 'session' as kind, principal, session, began, minutes, nano / minutes as rate from spent where session <> ''
    union all
    select tenant, 'principal', principal, '', began, minutes, sum(nano)::bigint / minutes
    from spent group by tenant, principal, began, minutes
  )
  select tenant, kind, principal, session, began, minutes, rate
  from (select *, row_number() over (partition by tenant, kind order by md5(principal || chr(31) || session)) as place from rates) r
  where place <= 1000
  union all
  select tenant, kind, '', '', began, minutes, percentile_disc(0.5) within group (order by rate)
  from rates group by tenant, kind, began, minutes
  on conflict do nothing
$$;

-- What no window needs any more, and windows beyond the days that count as normal, a bounded number of them.
create function trim_spend(p_tenants text[], p_minutes int[], p_days int[], p_to timestamptz) returns void
language sql as $$
  delete from spend_slot s using unnest(p_tenants, p_minutes) as w(tenant, minutes)
  where s.tenant = w.tenant and s.slot_at < p_to - make_interval(mins => 3 * w.minutes);
  delete from spend_window h using (
    select old.tenant, old.kind, old.principal, old.session, old.began
    from unnest(p_tenants, p_days) as w(tenant, days)
    cross join lateral (
      select * from spend_window o where o.tenant = w.tenant and o.began < p_to - make_interval(days => w.days) limit 5000) old
  ) o
  where (h.tenant, h.kind, h.principal, h.session, h.began) = (o.tenant, o.kind, o.principal, o.session, o.began)
$$;

-- What nobody watches any more, once an hour; a released pause goes with the longest normal that it could have been left out of.
create function forget_spend(p_now timestamptz default null) returns void
language sql as $$
  delete from spend_slot where slot_at < coalesce(p_now, clock_timestamp()) - interval '4 hours';
  delete from spend_window where began < coalesce(p_now, clock_timestamp()) - interval '91 days';
  delete from pause where released_at < coalesce(p_now, clock_timestamp()) - interval '91 days'
$$;

revoke execute on function spender, fold_spend, fold_slots, close_windows, trim_spend, forget_spend from public;
grant execute on function spender, fold_spend, fold_slots, close_windows, trim_spend, forget_spend
  to shipworthy_operator;

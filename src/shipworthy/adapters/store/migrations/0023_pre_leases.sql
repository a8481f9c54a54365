-- Leases: a worker's share of the levels of one path, taken ahead of use and spent in its memory.
--
-- Always charged + held + leased + suspended + free = cap, and in every sliding minute: counted + leased <= limit. What a lease
-- holds is counted as used until its worker says otherwise; requests and tokens enter the window's slot of the moment in which
-- their use is reported, which is never earlier than the use.
-- Lock order, extended: holds by id, leases by id, rows of the record, counters, paces.

create table lease (
  tenant       text not null check (tenant <> ''),
  id           uuid not null,
  worker       text not null,
  claims       jsonb not null,                   -- of type claim[]
  levels       text[] not null,                  -- the claims' keys
  nano         bigint not null check (nano >= 0),          -- not charged yet: spendable, held, or used and not recorded yet
  requests     int not null check (requests >= 0),         -- not reported as used yet
  tokens       bigint not null check (tokens >= 0),
  places       int not null check (places >= 0),           -- requests that may be in flight at once
  recalled     boolean not null default false,   -- somebody was refused because of it
  ended        boolean not null default false,   -- its worker spends it no more; it goes with its last row
  presumed     boolean not null default false,   -- an exchange of it was recorded for its worker: what that believes is wrong
  suspended_at timestamptz,                      -- since when its worker is believed gone: its money is suspended, not leased
  expires_at   timestamptz not null,
  created_at   timestamptz not null default clock_timestamp(),
  primary key (tenant, id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);

-- An intent of a leased exchange is a hold that counts nowhere: its money is the lease's.
alter table hold add column lease_id uuid;
create index hold_lease on hold (tenant, lease_id) where lease_id is not null;
alter table pace add column leased_requests int not null default 0 check (leased_requests >= 0);
alter table pace add column leased_tokens bigint not null default 0 check (leased_tokens >= 0);
alter table pace add column leased_places int not null default 0 check (leased_places >= 0);

alter table lease enable row level security, force row level security;
grant select, insert, update, delete on lease to shipworthy_app;
grant select, update, delete on lease to shipworthy_recorder;
grant select on lease to shipworthy_operator;
grant insert on hold to shipworthy_recorder;
create policy lease_app on lease for all to shipworthy_app
  using (tenant = nullif((select current_setting('app.tenant', true)), ''))
  with check (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy lease_recorder on lease for all to shipworthy_recorder
  using (tenant = nullif((select current_setting('app.tenant', true)), ''))
  with check (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy lease_operator_select on lease for select to shipworthy_operator using (true);

-- ------------------------------------------------------------------------------------------------ the sliding minute, with leases

create or replace function empty_pace(p_tenant text, p_key text, p_second bigint) returns pace
language sql immutable as $$
  select row(p_tenant, p_key, p_second, array_fill(0, array[61]), array_fill(0::bigint, array[61]), 0, 0::bigint, 0,
             0, 0::bigint, 0)::pace
$$;

create or replace function rolled(p pace, p_second bigint) returns pace
language plpgsql immutable as $$
declare
  r      pace;
  v_slot int;
begin
  if p_second <= p.head and p.head - p_second <= 61 then
    return p;
  end if;
  if abs(p_second - p.head) >= 61 then
    r := empty_pace(p.tenant, p.key, p_second);
    r.in_flight := p.in_flight;
    r.leased_requests := p.leased_requests;
    r.leased_tokens := p.leased_tokens;
    r.leased_places := p.leased_places;
    if p_second < p.head then
      v_slot := p_second % 61 + 1;
      r.requests[v_slot] := p.requests_sum;
      r.tokens[v_slot] := p.tokens_sum;
      r.requests_sum := p.requests_sum;
      r.tokens_sum := p.tokens_sum;
    end if;
    return r;
  end if;
  for s in p.head + 1 .. p_second loop
    v_slot := s % 61 + 1;
    p.requests_sum := p.requests_sum - p.requests[v_slot];
    p.tokens_sum := p.tokens_sum - p.tokens[v_slot];
    p.requests[v_slot] := 0;
    p.tokens[v_slot] := 0;
  end loop;
  p.head := p_second;
  return p;
end $$;

create or replace function keep_pace(p pace) returns void
language sql as $$
  update pace t
  set head = p.head, requests = p.requests, tokens = p.tokens, requests_sum = p.requests_sum, tokens_sum = p.tokens_sum,
      in_flight = p.in_flight, leased_requests = p.leased_requests, leased_tokens = p.leased_tokens,
      leased_places = p.leased_places
  where t.tenant = p.tenant and t.key = p.key
$$;

-- The window with so many requests and tokens more in its newest slot.
create function counted(p pace, p_requests int, p_tokens bigint) returns pace
language plpgsql immutable as $$
declare
  v_slot int := p.head % 61 + 1;
begin
  p.requests[v_slot] := p.requests[v_slot] + p_requests;
  p.tokens[v_slot] := p.tokens[v_slot] + p_tokens;
  p.requests_sum := p.requests_sum + p_requests;
  p.tokens_sum := p.tokens_sum + p_tokens;
  return p;
end $$;

-- The window with so many requests and tokens fewer in the slot of a second; what has left the window stays as it is.
create function uncounted(p pace, p_second bigint, p_requests int, p_tokens bigint) returns pace
language plpgsql immutable as $$
declare
  v_slot int := p_second % 61 + 1;
begin
  if p_second between p.head - 60 and p.head then
    p_requests := least(p_requests, p.requests[v_slot]);
    p_tokens := least(p_tokens, p.tokens[v_slot]);
    p.requests[v_slot] := p.requests[v_slot] - p_requests;
    p.tokens[v_slot] := p.tokens[v_slot] - p_tokens;
    p.requests_sum := p.requests_sum - p_requests;
    p.tokens_sum := p.tokens_sum - p_tokens;
  end if;
  return p;
end $$;

-- holds_only: only what leases hold is in the way, and may come back any moment.
create or replace function refused_by_limit(p_claims claim[], p_paces pace[], p_tokens bigint, p_now timestamptz) returns verdict
language plpgsql as $$
declare
  c       claim;
  p       pace;
  v       verdict;
  i       int := 0;
  v_epoch double precision := extract(epoch from coalesce(p_now, clock_timestamp()));
begin
  foreach c in array p_claims loop
    continue when not has_limits(c);
    i := i + 1;
    p := p_paces[i];
    if c.requests > 0 and p.requests_sum + p.leased_requests + 1 > c.requests then
      v.reason := 'requests_limit';
      v.holds_only := p.requests_sum + 1 <= c.requests;
      v.retry_after_s := room_at(p.requests, p.head, p.requests_sum + 1 - c.requests) - v_epoch;
    elsif c.tokens > 0 and p.tokens_sum + p.leased_tokens + p_tokens > c.tokens then
      v.reason := 'tokens_limit';
      v.holds_only := p.tokens_sum + p_tokens <= c.tokens;
      v.retry_after_s := room_at(p.tokens, p.head, p.tokens_sum + p_tokens - c.tokens) - v_epoch;
    elsif c.concurrent > 0 and p.in_flight + p.leased_places + 1 > c.concurrent then
      v.reason := 'concurrent_limit';
      v.holds_only := p.in_flight + 1 <= c.concurrent;
      v.retry_after_s := 1;
    end if;
    if v.reason is not null then
      v.key := c.key;
      v.period := 'minute';
      v.retry_after_s := case when v.retry_after_s < 0 then 0 else v.retry_after_s end;
      return v;
    end if;
  end loop;
  return v;
end $$;

create or replace function standing(p_claims claim[], p_paces pace[], p_now timestamptz) returns verdict
language plpgsql as $$
declare
  c       claim;
  p       pace;
  v       verdict;
  i       int := 0;
  v_epoch double precision := extract(epoch from coalesce(p_now, clock_timestamp()));
begin
  foreach c in array p_claims loop
    continue when not has_limits(c);
    i := i + 1;
    p := p_paces[i];
    if c.requests > 0
       and c.requests - p.requests_sum - p.leased_requests < coalesce(v.remaining_requests, 2147483647) then
      v.limit_requests := c.requests;
      v.remaining_requests := greatest(0, c.requests - p.requests_sum - p.leased_requests);
      v.reset_requests_s := room_at(p.requests, p.head, 1) - v_epoch;
    end if;
    if c.tokens > 0
       and c.tokens - p.tokens_sum - p.leased_tokens < coalesce(v.remaining_tokens, 9223372036854775807) then
      v.limit_tokens := c.tokens;
      v.remaining_tokens := greatest(0, c.tokens - p.tokens_sum - p.leased_tokens);
      v.reset_tokens_s := room_at(p.tokens, p.head, 1) - v_epoch;
    end if;
  end loop;
  return v;
end $$;

-- ------------------------------------------------------------------------------------------------ reserve ahead

-- Asks the workers that hold leases at a level to give back what they do not need. Takes no lock that anyone waits for.
create function recall(p_tenant text, p_key text) returns void
language plpgsql as $$
begin
  update lease t set recalled = true
  where t.tenant = p_tenant and t.id in (
    select l.id from lease l
    where l.tenant = p_tenant and not l.recalled and not l.ended and l.suspended_at is null and p_key = any(l.levels)
    for update skip locked);
  if found then
    perform pg_notify('shipworthy_leases', p_tenant);
  end if;
end $$;

create type wish as (nano bigint, requests int, tokens bigint, places int);

-- How much of a wish a worker may be given: at every level at most its share of half of what is free.
create function share_of(p_claims claim[], p_paces pace[], p_tenant text, p_wish wish, p_workers int) returns wish
language plpgsql as $$
declare
  c       claim;
  p       pace;
  v_free  bigint;
  v_parts int := 2 * p_workers;
  w       wish := p_wish;
  i       int := 0;
begin
  foreach c in array p_claims loop
    if c.cap >= 0 and w.nano > 0 then
      select c.cap - t.charged_nano - t.held_nano - t.leased_nano - t.suspended_nano into strict v_free from counter t
      where t.tenant = p_tenant and t.key = c.key and t.period = c.period and t.period_start = c.period_start;
      w.nano := least(w.nano, v_free / v_parts);
    end if;
    if has_limits(c) then
      i := i + 1;
      p := p_paces[i];
      if c.requests > 0 then
        w.requests := least(w.requests, (c.requests - p.requests_sum - p.leased_requests) / v_parts);
      end if;
      if c.tokens > 0 then
        w.tokens := least(w.tokens, (c.tokens - p.tokens_sum - p.leased_tokens) / v_parts);
      end if;
      if c.concurrent > 0 then
        w.places := least(w.places, (c.concurrent - p.in_flight - p.leased_places) / v_parts);
      end if;
    end if;
  end loop;
  return w;
end $$;

-- One request, and for the lease as much of p_wish as there is room for: when `granted`, the lease was given it, this request
-- is to be drawn from it, and nothing else is reserved. Where there is no room for two like it in whatever is wished for (free <
-- 4 x workers x hold), this one request is reserved directly; without p_direct the lease is given what it needs alone, and
-- nothing if it may not be spent any more. p_id null: there is no request yet, only a lease is wanted. p_wish null: no lease.
-- p_again: the answer to a first try may have been lost; a lease that nobody knows of goes when it expires.
create function reserve_ahead(
  p_tenant text, p_id uuid, p_arrived_unix_ns bigint, p_claims jsonb, p_amount bigint, p_tokens bigint, p_intent bytea,
  p_worker text, p_expires_s double precision, p_durable boolean, p_again boolean, p_now timestamptz,
  p_lease uuid, p_wish wish, p_workers int, p_ttl_s double precision, p_direct boolean
) returns table (verdict verdict, granted boolean, given wish)
language plpgsql as $$
declare
  v_claims  claim[];
  c         claim;
  p         pace;
  l         lease;
  v_paces   pace[];
  v_before  text collate "C" := '';
  v_now     timestamptz := coalesce(p_now, clock_timestamp());
  v_workers int;
begin
  perform set_config('app.tenant', p_tenant, true);
  granted := false;
  if p_again and exists (select from hold h where h.tenant = p_tenant and h.id = p_id) then
    return next;
    return;
  end if;
  v_claims := array(select r from jsonb_populate_recordset(null::claim, p_claims) r);
  foreach c in array v_claims loop
    if c.key collate "C" <= v_before then
      raise exception 'claims are not in lock order: % after %', c.key, v_before using errcode = 'assert_failure';
    end if;
    v_before := c.key;
  end loop;
  -- without locks, so that a caller who hammers on a spent budget makes nobody wait
  verdict := refused_by_budget(p_tenant, v_claims, p_amount, false, p_now);
  if verdict.reason is null then
    v_paces := paces_of(p_tenant, v_claims, false, p_now);
    verdict := refused_by_limit(v_claims, v_paces, p_tokens, p_now);
  end if;
  if verdict.reason is not null then
    if verdict.holds_only then
      perform recall(p_tenant, verdict.key);
    end if;
    return next;
    return;
  end if;
  if p_wish is not null then
    select * into l from lease t where t.tenant = p_tenant and t.id = p_lease for update;
    v_workers := greatest(p_workers, (select count(distinct t.worker) from lease t where t.tenant = p_tenant), 1);
  end if;
  verdict := refused_by_budget(p_tenant, v_claims, p_amount, true, p_now);
  if verdict.reason is not null then
    return next;
    return;
  end if;
  v_paces := paces_of(p_tenant, v_claims, true, p_now);
  verdict := refused_by_limit(v_claims, v_paces, p_tokens, p_now);
  if verdict.reason is not null then
    return next;
    return;
  end if;
  if p_wish is not null and not p_again and (l.id is null or (l.suspended_at is null and not (l.ended or l.presumed))) then
    given := share_of(v_claims, v_paces, p_tenant, p_wish, v_workers);
    granted := given.nano >= least(p_wish.nano, 2 * p_amount) and given.requests >= least(p_wish.requests, 2)
      and given.tokens >= least(p_wish.tokens, 2 * p_tokens) and given.places >= least(p_wish.places, 2);
    if not granted and not p_direct and p_id is not null then
      given := row(least(p_wish.nano, p_amount), least(p_wish.requests, 1), least(p_wish.tokens, p_tokens),
                   least(p_wish.places, 1))::wish;
      granted := true;
    end if;
  end if;
  if not granted then
    given := null;
    if p_id is null or not p_direct then
      return next;
      return;
    end if;
    if not p_durable then
      perform set_config('synchronous_commit', 'off', true);
    end if;
  end if;
  foreach c in array v_claims loop
    continue when c.cap < 0;
    update counter t
    set held_nano = t.held_nano + case when granted then 0 else p_amount end,
        leased_nano = t.leased_nano + case when granted then given.nano else 0 end, cap_nano = c.cap
    where t.tenant = p_tenant and t.key = c.key and t.period = c.period and t.period_start = c.period_start;
  end loop;
  for i in 1 .. cardinality(v_paces) loop
    p := v_paces[i];
    if granted then
      p.leased_requests := p.leased_requests + given.requests;
      p.leased_tokens := p.leased_tokens + given.tokens;
      p.leased_places := p.leased_places + given.places;
    else
      p := counted(p, 1, p_tokens);
      p.in_flight := p.in_flight + 1;
    end if;
    perform keep_pace(p);
    v_paces[i] := p;
  end loop;
  if not granted then
    insert into hold (tenant, id, arrived_unix_ns, claims, amount_nano, tokens, paced_s, worker, expires_at, intent)
    values (p_tenant, p_id, p_arrived_unix_ns, p_claims, p_amount, p_tokens, coalesce(v_paces[1].head, 0), p_worker,
            v_now + make_interval(secs => p_expires_s), p_intent);
  elsif l.id is null then
    insert into lease (tenant, id, worker, claims, levels, nano, requests, tokens, places, expires_at)
    values (p_tenant, p_lease, p_worker, p_claims, array(select r.key from unnest(v_claims) r), given.nano, given.requests,
            given.tokens, given.places, v_now + make_interval(secs => p_ttl_s));
  else
    update lease t set nano = t.nano + given.nano, requests = t.requests + given.requests, tokens = t.tokens + given.tokens,
                       places = t.places + given.places, expires_at = v_now + make_interval(secs => p_ttl_s)
    where t.tenant = p_tenant and t.id = p_lease;
  end if;
  verdict := standing(v_claims, v_paces, p_now);
  return next;
end $$;

-- More money for a lease, or none: caps are those that the latest reservation saw. reason 'hold_gone': there is no such lease.
create function top_up(p_tenant text, p_lease uuid, p_more bigint, p_now timestamptz) returns verdict
language plpgsql as $$
declare
  l        lease;
  c        claim;
  v_claims claim[];
  v        verdict;
begin
  perform set_config('app.tenant', p_tenant, true);
  select * into l from lease t where t.tenant = p_tenant and t.id = p_lease for update;
  if not found or l.suspended_at is not null or l.ended or l.presumed then
    v.reason := 'hold_gone';
    return v;
  end if;
  v_claims := array(
    select row(r.key, n.cap_nano, r.period, r.period_start, r.period_end, r.requests, r.tokens, r.concurrent)::claim
    from jsonb_populate_recordset(null::claim, l.claims) r
    join counter n on n.tenant = p_tenant and n.key = r.key and n.period = r.period and n.period_start = r.period_start
    where r.cap >= 0 order by r.key collate "C");
  v := refused_by_budget(p_tenant, v_claims, p_more, true, p_now);
  if v.reason is not null then
    return v;
  end if;
  foreach c in array v_claims loop
    update counter t set leased_nano = t.leased_nano + p_more
    where t.tenant = p_tenant and t.key = c.key and t.period = c.period and t.period_start = c.period_start;
  end loop;
  update lease t set nano = t.nano + p_more where t.tenant = p_tenant and t.id = p_lease;
  return v;
end $$;

-- ------------------------------------------------------------------------------------------------ turn: once a second

create type turn as (
  id            uuid,
  back_nano     bigint, back_requests int, back_tokens bigint, back_places int,  -- not needed any more
  used_requests int, used_tokens bigint,                                          -- admitted since the last turn
  over          jsonb,                           -- [[second, requests, tokens]]: counted then, and not used after all
  ended         boolean
);

-- What leaves each lease by its turn. One that has ended keeps nothing but the money of rows that are under way: whatever else
-- it still has, because an answer was lost, counts as used.
create function moved(p_turns turn[], p_leases lease[])
returns table (id uuid, claims jsonb, nano bigint, resumed bigint, used_requests int, used_tokens bigint, requests int,
               tokens bigint, places int, over jsonb, ended boolean)
language sql immutable as $$
  select l.id, l.claims, least(t.back_nano, l.nano), case when l.suspended_at is null then 0 else l.nano end,
         case when t.ended then greatest(t.used_requests, l.requests - t.back_requests) else t.used_requests end,
         case when t.ended then greatest(t.used_tokens, l.tokens - t.back_tokens) else t.used_tokens end,
         case when t.ended then l.requests else least(l.requests, t.used_requests + t.back_requests) end,
         case when t.ended then l.tokens else greatest(0, least(l.tokens, t.used_tokens + t.back_tokens)) end,
         case when t.ended then l.places else least(l.places, t.back_places) end,
         t.over, t.ended
  from unnest(p_leases) l join unnest(p_turns) t on t.id = l.id
$$;

-- What a worker reports of its leases, and their renewal. gone: the lease was taken for dead, and exchanges of it were recorded
-- for its worker, who spends it no more: what it believes that is left may be charged by now.
create function turn(p_tenant text, p_turns jsonb, p_ttl_s double precision, p_now timestamptz)
returns table (lease uuid, gone boolean, second bigint, standing verdict)
language plpgsql as $$
declare
  v_turns  turn[];
  v_leases lease[];
  r        record;
  s        record;
  p        pace;
  v_expiry timestamptz := coalesce(p_now, clock_timestamp()) + make_interval(secs => p_ttl_s);
  v_claims claim[];
begin
  perform set_config('app.tenant', p_tenant, true);
  v_turns := array(select t from jsonb_populate_recordset(null::turn, p_turns) t order by t.id);
  v_leases := array(select l from lease l
                    where l.tenant = p_tenant and l.id in (select t.id from unnest(v_turns) t) and not l.presumed
                    order by l.id for update);
  for r in
    select c.key collate "C" as key, c.period collate "C" as period, c.period_start,
           sum(m.nano) as back, sum(m.resumed) as resumed
    from moved(v_turns, v_leases) m cross join jsonb_populate_recordset(null::claim, m.claims) c
    where c.cap >= 0 and (m.nano > 0 or m.resumed > 0)
    group by 1, 2, 3 order by 1, 2, 3
  loop
    update counter n
    set leased_nano = n.leased_nano + r.resumed - r.back, suspended_nano = n.suspended_nano - r.resumed
    where n.tenant = p_tenant and n.key = r.key and n.period = r.period and n.period_start = r.period_start;
  end loop;
  second := floor(extract(epoch from coalesce(p_now, clock_timestamp())));
  for r in
    select c.key collate "C" as key, sum(m.used_requests)::int as used_requests, sum(m.used_tokens)::bigint as used_tokens,
           sum(m.requests)::int as requests, sum(m.tokens)::bigint as tokens, sum(m.places)::int as places,
           jsonb_agg(m.over) as over
    from moved(v_turns, v_leases) m cross join jsonb_populate_recordset(null::claim, m.claims) c
    where has_limits(c)
    group by 1 order by 1
  loop
    select * into p from pace t where t.tenant = p_tenant and t.key = r.key for update;
    continue when not found;
    second := greatest(second, floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint);
    p := counted(rolled(p, second), r.used_requests, r.used_tokens);
    p.leased_requests := greatest(0, p.leased_requests - r.requests);
    p.leased_tokens := greatest(0, p.leased_tokens - r.tokens);
    p.leased_places := greatest(0, p.leased_places - r.places);
    for s in
      select (o ->> 0)::bigint as second, sum((o ->> 1)::int)::int as requests, sum((o ->> 2)::bigint)::bigint as tokens
      from jsonb_array_elements(r.over) each, jsonb_array_elements(each) o group by 1
    loop
      p := uncounted(p, s.second, s.requests, s.tokens);
    end loop;
    second := p.head;
    perform keep_pace(p);
  end loop;
  update lease l
  set nano = l.nano - m.nano, requests = l.requests - m.requests, tokens = l.tokens - m.tokens, places = l.places - m.places,
      recalled = false, suspended_at = null, ended = m.ended, expires_at = v_expiry
  from moved(v_turns, v_leases) m
  where l.tenant = p_tenant and l.id = m.id;
  delete from lease l using unnest(v_turns) t where l.tenant = p_tenant and l.id = t.id and l.ended and l.nano = 0 and not l.presumed;
  for r in select t.id, l.claims, l.id as known from unnest(v_turns) t left join unnest(v_leases) l on l.id = t.id loop
    lease := r.id;
    gone := r.known is null;
    standing := null;
    if r.known is not null then
      v_claims := array(select c from jsonb_populate_recordset(null::claim, r.claims) c);
      standing := standing(v_claims, paces_of(p_tenant, v_claims, false, p_now), p_now);
    end if;
    return next;
  end loop;
end $$;

-- ------------------------------------------------------------------------------------------------ the dead

-- Intents of leased exchanges, as many as have gathered; what is said twice stands once, at its highest.
create function intend(
  p_tenant text, p_ids uuid[], p_arrived bigint[], p_claims jsonb[], p_amounts bigint[], p_tokens bigint[], p_leases uuid[],
  p_worker text, p_expires_s double precision[], p_intents bytea[], p_now timestamptz
) returns void
language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  insert into hold (tenant, id, arrived_unix_ns, claims, amount_nano, tokens, paced_s, worker, expires_at, intent, lease_id)
  select p_tenant, i.id, i.arrived, i.claims, i.amount, i.tokens, 0, p_worker,
         coalesce(p_now, clock_timestamp()) + make_interval(secs => i.expires_s), i.intent, i.lease
  from unnest(p_ids, p_arrived, p_claims, p_amounts, p_tokens, p_leases, p_expires_s, p_intents)
    as i(id, arrived, claims, amount, tokens, lease, expires_s, intent)
  on conflict (tenant, id) do update set amount_nano = greatest(hold.amount_nano, excluded.amount_nano)
  where hold.lease_id is not distinct from excluded.lease_id;
end $$;

-- The number of the advisory lock that a worker's writer holds, shared, for as long as its connection lives.
create function worker_lock(p_worker text) returns bigint
language sql immutable as $$ select hashtextextended('shipworthy.worker.' || p_worker, 0) $$;

-- Whether nothing that the worker sent can still arrive. Tried for the length of the statement.
create function is_silent(p_worker text) returns boolean
language sql volatile as $$ select pg_try_advisory_xact_lock(worker_lock(p_worker)) $$;

-- Money of leases whose worker is believed gone can be spent by nobody until it is known what became of it.
create function suspend(p_tenant text, p_leases uuid[], p_now timestamptz) returns int
language plpgsql as $$
declare
  v_leases lease[];
  r        record;
begin
  perform set_config('app.tenant', p_tenant, true);
  v_leases := array(select l from lease l where l.tenant = p_tenant and l.id = any(p_leases) and l.suspended_at is null
                    order by l.id for update);
  for r in
    select c.key collate "C" as key, c.period collate "C" as period, c.period_start, sum(l.nano) as nano
    from unnest(v_leases) l cross join jsonb_populate_recordset(null::claim, l.claims) c
    where c.cap >= 0 and l.nano > 0 group by 1, 2, 3 order by 1, 2, 3
  loop
    update counter n set leased_nano = n.leased_nano - r.nano, suspended_nano = n.suspended_nano + r.nano
    where n.tenant = p_tenant and n.key = r.key and n.period = r.period and n.period_start = r.period_start;
  end loop;
  update lease l set suspended_at = coalesce(p_now, clock_timestamp())
  where l.tenant = p_tenant and l.id in (select d.id from unnest(v_leases) d);
  return cardinality(v_leases);
end $$;

-- Frees what is left of suspended leases whose exchanges are all recorded: no intent of theirs is left. What was leased of a
-- window counts as used now.
create function bury(p_tenant text, p_leases uuid[], p_now timestamptz) returns int
language plpgsql as $$
declare
  v_leases lease[];
  r        record;
  p        pace;
begin
  perform set_config('app.tenant', p_tenant, true);
  v_leases := array(
    select l from lease l
    where l.tenant = p_tenant and l.id = any(p_leases) and l.suspended_at is not null
      and not exists (select from hold h where h.tenant = p_tenant and h.lease_id = l.id)
    order by l.id for update);
  for r in
    select c.key collate "C" as key, c.period collate "C" as period, c.period_start, sum(l.nano) as nano
    from unnest(v_leases) l cross join jsonb_populate_recordset(null::claim, l.claims) c
    where c.cap >= 0 and l.nano > 0 group by 1, 2, 3 order by 1, 2, 3
  loop
    update counter n set suspended_nano = n.suspended_nano - r.nano
    where n.tenant = p_tenant and n.key = r.key and n.period = r.period and n.period_start = r.period_start;
  end loop;
  for r in
    select c.key collate "C" as key, sum(l.requests)::int as requests, sum(l.tokens)::bigint as tokens,
           sum(l.places)::int as places
    from unnest(v_leases) l cross join jsonb_populate_recordset(null::claim, l.claims) c
    where has_limits(c) group by 1 order by 1
  loop
    select * into p from pace t where t.tenant = p_tenant and t.key = r.key for update;
    continue when not found;
    p := counted(rolled(p, floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint), r.requests, r.tokens);
    p.leased_requests := greatest(0, p.leased_requests - r.requests);
    p.leased_tokens := greatest(0, p.leased_tokens - r.tokens);
    p.leased_places := greatest(0, p.leased_places - r.places);
    perform keep_pace(p);
  end loop;
  delete from lease l where l.tenant = p_tenant and l.id in (select d.id from unnest(v_leases) d);
  return cardinality(v_leases);
end $$;

revoke execute on function reserve_ahead, top_up, turn(text, jsonb, double precision, timestamptz), recall, share_of, moved,
  intend, suspend, bury, is_silent from public;
grant execute on function reserve_ahead, top_up, turn(text, jsonb, double precision, timestamptz), recall, share_of, moved
  to shipworthy_app;
grant execute on function intend, suspend, bury to shipworthy_recorder;
grant execute on function is_silent to shipworthy_operator;

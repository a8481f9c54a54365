-- Turns: what workers report of their leases once a second; and what becomes of the leases of those who report no more.

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
  select distinct on (i.id) p_tenant, i.id, i.arrived, i.claims, i.amount, i.tokens, 0, p_worker,
         coalesce(p_now, clock_timestamp()) + make_interval(secs => i.expires_s), i.intent, i.lease
  from unnest(p_ids, p_arrived, p_claims, p_amounts, p_tokens, p_leases, p_expires_s, p_intents)
    as i(id, arrived, claims, amount, tokens, lease, expires_s, intent)
  order by i.id, i.amount desc
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

revoke execute on function turn(text, jsonb, double precision, timestamptz), moved, intend, suspend, bury, is_silent from public;
grant execute on function turn(text, jsonb, double precision, timestamptz), moved to shipworthy_app;
grant execute on function intend, suspend, bury to shipworthy_recorder;
grant execute on function is_silent to shipworthy_operator;

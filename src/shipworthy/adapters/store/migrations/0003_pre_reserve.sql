-- Reservation: one statement, one round trip, every level or none.

create type claim as (
  key text, cap bigint, period text, period_start timestamptz, period_end timestamptz,
  requests int, tokens bigint, concurrent int   -- cap -1 = no budget; requests, tokens, concurrent 0 = no such limit
);

create type verdict as (
  reason text,                                  -- null = admitted; else the second half of the refusal's code
  key text, period text, retry_after_s double precision,
  holds_only boolean,                           -- refused only because of holds, which may be released any moment
  limit_requests int, remaining_requests int, reset_requests_s double precision,
  limit_tokens bigint, remaining_tokens bigint, reset_tokens_s double precision
);

create function has_limits(c claim) returns boolean
language sql immutable as $$ select c.requests > 0 or c.tokens > 0 or c.concurrent > 0 $$;

-- ------------------------------------------------------------------------------------------------ the sliding minute

create function empty_pace(p_tenant text, p_key text, p_second bigint) returns pace
language sql immutable as $$
  select row(p_tenant, p_key, p_second, array_fill(0, array[61]), array_fill(0::bigint, array[61]), 0, 0::bigint, 0)::pace
$$;

-- The window as it is at a second: slots that left it are emptied. A clock that stepped back by more than the window keeps
-- the count in the newest slot, so that nothing is forgotten and nothing is blocked for longer than a minute.
create function rolled(p pace, p_second bigint) returns pace
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

-- The second at which at least p_surplus has left the window; null = never.
create function room_at(p_slots bigint[], p_head bigint, p_surplus bigint) returns bigint
language plpgsql immutable as $$
declare
  v_left bigint := p_surplus;
begin
  for s in p_head - 60 .. p_head loop
    v_left := v_left - p_slots[s % 61 + 1];
    if v_left <= 0 then
      return s + 61;
    end if;
  end loop;
  return null;
end $$;

-- The windows of all levels that have limits, in lock order, rolled to one and the same second. With p_lock their rows exist
-- and are locked, and the second is taken after the wait.
create function paces_of(p_tenant text, p_claims claim[], p_lock boolean, p_now timestamptz) returns pace[]
language plpgsql as $$
declare
  c        claim;
  p        pace;
  v_paces  pace[] := '{}';
  v_second bigint;
begin
  foreach c in array p_claims loop
    continue when not has_limits(c);
    if p_lock then
      select * into p from pace t where t.tenant = p_tenant and t.key = c.key for update;
      if not found then
        insert into pace select (empty_pace(p_tenant, c.key, 0)).* on conflict do nothing;
        select * into strict p from pace t where t.tenant = p_tenant and t.key = c.key for update;
      end if;
    else
      select * into p from pace t where t.tenant = p_tenant and t.key = c.key;
      if not found then
        p := empty_pace(p_tenant, c.key, 0);
      end if;
    end if;
    v_paces := v_paces || p;
  end loop;
  v_second := floor(extract(epoch from coalesce(p_now, clock_timestamp())));
  for i in 1 .. cardinality(v_paces) loop
    v_paces[i] := rolled(v_paces[i], v_second);
  end loop;
  return v_paces;
end $$;

create function keep_pace(p pace) returns void
language sql as $$
  update pace t
  set head = p.head, requests = p.requests, tokens = p.tokens, requests_sum = p.requests_sum, tokens_sum = p.tokens_sum,
      in_flight = p.in_flight
  where t.tenant = p.tenant and t.key = p.key
$$;

-- ------------------------------------------------------------------------------------------------ who says no

create function locked_counter(p_tenant text, c claim) returns counter
language plpgsql as $$
declare
  n counter;
begin
  select * into n from counter t
  where t.tenant = p_tenant and t.key = c.key and t.period = c.period and t.period_start = c.period_start for update;
  if not found then
    insert into counter (tenant, key, period, period_start, cap_nano)
    values (p_tenant, c.key, c.period, c.period_start, c.cap) on conflict do nothing;
    select * into strict n from counter t
    where t.tenant = p_tenant and t.key = c.key and t.period = c.period and t.period_start = c.period_start for update;
  end if;
  return n;
end $$;

-- The first level whose budget does not cover p_amount more; reason null = every one does. With p_lock the counters exist
-- and stay locked.
create function refused_by_budget(p_tenant text, p_claims claim[], p_amount bigint, p_lock boolean, p_now timestamptz)
returns verdict
language plpgsql as $$
declare
  c claim;
  n counter;
  v verdict;
begin
  foreach c in array p_claims loop
    continue when c.cap < 0;
    n := null;
    if p_lock then
      n := locked_counter(p_tenant, c);
    else
      select * into n from counter t
      where t.tenant = p_tenant and t.key = c.key and t.period = c.period and t.period_start = c.period_start;
    end if;
    if coalesce(n.charged_nano + n.held_nano + n.leased_nano + n.suspended_nano, 0) + p_amount > c.cap then
      v.reason := 'budget_exhausted';
      v.key := c.key;
      v.period := c.period;
      v.retry_after_s := greatest(0, extract(epoch from c.period_end - coalesce(p_now, clock_timestamp())));
      v.holds_only := coalesce(n.charged_nano + n.suspended_nano, 0) + p_amount <= c.cap;
      return v;
    end if;
  end loop;
  return v;
end $$;

create function refused_by_limit(p_claims claim[], p_paces pace[], p_tokens bigint, p_now timestamptz) returns verdict
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
    if c.requests > 0 and p.requests_sum + 1 > c.requests then
      v.reason := 'requests_limit';
      v.retry_after_s := room_at(p.requests, p.head, p.requests_sum + 1 - c.requests) - v_epoch;
    elsif c.tokens > 0 and p.tokens_sum + p_tokens > c.tokens then
      v.reason := 'tokens_limit';
      v.retry_after_s := room_at(p.tokens, p.head, p.tokens_sum + p_tokens - c.tokens) - v_epoch;
    elsif c.concurrent > 0 and p.in_flight + 1 > c.concurrent then
      v.reason := 'concurrent_limit';
      v.retry_after_s := 1;
    end if;
    if v.reason is not null then
      v.key := c.key;
      v.period := 'minute';
      return v;
    end if;
  end loop;
  return v;
end $$;

-- What is left at the tightest level: the rate-limit headers. A reset is when the oldest that counts leaves the window.
create function standing(p_claims claim[], p_paces pace[], p_now timestamptz) returns verdict
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
    if c.requests > 0 and c.requests - p.requests_sum < coalesce(v.remaining_requests, 2147483647) then
      v.limit_requests := c.requests;
      v.remaining_requests := c.requests - p.requests_sum;
      v.reset_requests_s := room_at(p.requests, p.head, 1) - v_epoch;
    end if;
    if c.tokens > 0 and c.tokens - p.tokens_sum < coalesce(v.remaining_tokens, 9223372036854775807) then
      v.limit_tokens := c.tokens;
      v.remaining_tokens := c.tokens - p.tokens_sum;
      v.reset_tokens_s := room_at(p.tokens, p.head, 1) - v_epoch;
    end if;
  end loop;
  return v;
end $$;

-- ------------------------------------------------------------------------------------------------ reserve, raise

-- A refusal is first looked for without locks, so that a caller who hammers on a spent budget neither writes nor makes others
-- wait; admission is decided under the locks. p_again: the answer to a first try may have been lost on the way. p_durable false:
-- a crash of the server may forget the holds of its last moments; their charges still arrive with their rows.
create function reserve(
  p_tenant text, p_id uuid, p_arrived_unix_ns bigint, p_claims jsonb, p_amount bigint, p_tokens bigint, p_intent bytea, p_worker text,
  p_expires_s double precision, p_durable boolean, p_again boolean, p_now timestamptz
) returns verdict
language plpgsql as $$
declare
  v_claims claim[];
  c        claim;
  p        pace;
  v_paces  pace[];
  v        verdict;
  v_lock   boolean;
  v_slot   int;
  v_before text collate "C" := '';
begin
  perform set_config('app.tenant', p_tenant, true);
  if not p_durable then
    perform set_config('synchronous_commit', 'off', true);
  end if;
  if p_again and exists (select from hold h where h.tenant = p_tenant and h.id = p_id) then
    return v;
  end if;
  v_claims := array(select r from jsonb_populate_recordset(null::claim, p_claims) r);
  foreach c in array v_claims loop
    if c.key collate "C" <= v_before then
      raise exception 'claims are not in lock order: % after %', c.key, v_before using errcode = 'assert_failure';
    end if;
    v_before := c.key;
  end loop;
  foreach v_lock in array array[false, true] loop
    v := refused_by_budget(p_tenant, v_claims, p_amount, v_lock, p_now);
    if v.reason is not null then
      return v;
    end if;
    v_paces := paces_of(p_tenant, v_claims, v_lock, p_now);
    v := refused_by_limit(v_claims, v_paces, p_tokens, p_now);
    if v.reason is not null then
      return v;
    end if;
  end loop;
  foreach c in array v_claims loop
    continue when c.cap < 0;
    update counter t set held_nano = t.held_nano + p_amount, cap_nano = c.cap
    where t.tenant = p_tenant and t.key = c.key and t.period = c.period and t.period_start = c.period_start;
  end loop;
  for i in 1 .. cardinality(v_paces) loop
    p := v_paces[i];
    v_slot := p.head % 61 + 1;
    p.requests[v_slot] := p.requests[v_slot] + 1;
    p.tokens[v_slot] := p.tokens[v_slot] + p_tokens;
    p.requests_sum := p.requests_sum + 1;
    p.tokens_sum := p.tokens_sum + p_tokens;
    p.in_flight := p.in_flight + 1;
    perform keep_pace(p);
    v_paces[i] := p;
  end loop;
  insert into hold (tenant, id, arrived_unix_ns, claims, amount_nano, tokens, paced_s, worker, expires_at, intent)
  values (p_tenant, p_id, p_arrived_unix_ns, p_claims, p_amount, p_tokens, coalesce(v_paces[1].head, 0), p_worker,
          coalesce(p_now, clock_timestamp()) + make_interval(secs => p_expires_s), p_intent);
  return standing(v_claims, v_paces, p_now);
end $$;

-- A hold of at least p_amount, or a refusal and the old hold stays. Caps are those that the latest reservation saw: a lowered
-- cap applies at once. reason 'hold_gone': it was settled already.
create function raise_hold(p_tenant text, p_id uuid, p_amount bigint, p_now timestamptz) returns verdict
language plpgsql as $$
declare
  h        hold;
  c        claim;
  v_claims claim[];
  v        verdict;
  v_more   bigint;
begin
  perform set_config('app.tenant', p_tenant, true);
  select * into h from hold t where t.tenant = p_tenant and t.id = p_id for update;
  if not found then
    v.reason := 'hold_gone';
    return v;
  end if;
  v_more := p_amount - h.amount_nano;
  if v_more <= 0 then
    return v;
  end if;
  v_claims := array(
    select row(r.key, n.cap_nano, r.period, r.period_start, r.period_end, r.requests, r.tokens, r.concurrent)::claim
    from jsonb_populate_recordset(null::claim, h.claims) r
    join counter n on n.tenant = p_tenant and n.key = r.key and n.period = r.period and n.period_start = r.period_start
    where r.cap >= 0 order by r.key collate "C");
  v := refused_by_budget(p_tenant, v_claims, v_more, true, p_now);
  if v.reason is not null then
    return v;
  end if;
  foreach c in array v_claims loop
    update counter t set held_nano = t.held_nano + v_more
    where t.tenant = p_tenant and t.key = c.key and t.period = c.period and t.period_start = c.period_start;
  end loop;
  update hold t set amount_nano = p_amount where t.tenant = p_tenant and t.id = p_id;
  return v;
end $$;

revoke execute on function reserve, raise_hold from public;
grant execute on function reserve, raise_hold to shipworthy_app;

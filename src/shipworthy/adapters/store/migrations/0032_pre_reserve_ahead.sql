-- Reserve ahead: one request, and a lease where there is room for one; in one round trip, every level or none.

-- As in 0003, but what costs nothing is never refused for money: also not where more was used than was held.
create or replace function refused_by_budget(
  p_tenant text, p_claims claim[], p_amount bigint, p_lock boolean, p_now timestamptz
) returns verdict
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
    elsif p_amount > 0 then
      select * into n from counter t
      where t.tenant = p_tenant and t.key = c.key and t.period = c.period and t.period_start = c.period_start;
    end if;
    if p_amount > 0
       and coalesce(n.charged_nano + n.held_nano + n.leased_nano + n.suspended_nano, 0) + p_amount > c.cap then
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

revoke execute on function reserve_ahead, top_up, recall, share_of from public;
grant execute on function reserve_ahead, top_up, recall, share_of to shipworthy_app;

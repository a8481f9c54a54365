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

-- Corrections: what an exchange turned out to cost more or less than its row says. The row stays as it is; a correction is a
-- row beside it, final as well, and moves the counters that the exchange was charged to.
--
-- Nobody inserts here but correct(), which the operator may call: row, counters and the caller's administrative act commit
-- together. What was spent is rows + corrections, everywhere where it is said.

create table correction (
  tenant      text not null check (tenant <> ''),
  id          uuid not null,                     -- UUIDv7
  exchange_id uuid not null,
  arrived_at  timestamptz not null,              -- the exchange's: with its id it names the row
  arrived_unix_ns bigint not null,
  at          timestamptz not null,
  at_unix_ns  bigint not null,
  actor       text not null,
  reason      text not null check (reason <> ''),
  source      text not null,                     -- "invoice 2026-10", a file's name and digest
  provider    text not null,                     -- whose bill says so; '' = not said
  nano        bigint not null check (nano <> 0), -- signed
  lines       jsonb not null,                    -- model.correction.CorrectionLine[]: signed quantities and amounts
  levels      text[] not null,                   -- KEY@PERIOD of the counters that it moved
  token       text not null check (token <> ''), -- said again it adds nothing
  team        text not null,                     -- the exchange's, so that cost can be told apart without reading it again
  use_case    text not null,
  subject     text not null,
  model       text not null,
  primary key (tenant, id),
  unique (tenant, token)
);

create index correction_exchange on correction (tenant, exchange_id);
create index correction_arrival on correction (arrived_at);

alter table correction enable row level security, force row level security;

grant select on correction to shipworthy_app, shipworthy_operator;
create policy correction_app_select on correction for select to shipworthy_app
  using (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy correction_operator_select on correction for select to shipworthy_operator using (true);

-- Row-level security is forced on the owner too, whose rights correct() and expire_corrections() run with.
create policy correction_owner on correction for all to current_user using (true) with check (true);
create policy counter_owner_corrects on counter for all to current_user using (true) with check (true);

-- The counters that an exchange was charged to, in lock order, locked: of each of its levels the one whose period holds its
-- arrival. A counter made before periods knew their end ends one period after it began.
create function counters_of(p_tenant text, p_levels text[], p_arrived_at timestamptz) returns setof counter
language plpgsql
set timezone = 'UTC'
as $$
declare
  r record;
begin
  for r in
    select distinct on (n.key, n.period) n.key, n.period, n.period_start
    from unnest(p_levels) l(level)
    join counter n on n.tenant = p_tenant and n.key = substring(l.level from '^(.*)@[a-z]+$') collate "C"
                  and n.period = substring(l.level from '@([a-z]+)$') collate "C"
    where n.period_start <= p_arrived_at
      and p_arrived_at < coalesce(n.period_end, n.period_start + ('1 ' || n.period)::interval)
    order by n.key, n.period, n.period_start desc
  loop
    return query select * from counter n
      where n.tenant = p_tenant and n.key = r.key and n.period = r.period and n.period_start = r.period_start for update;
  end loop;
end $$;

-- One correction. state: applied; known, its token was used before; gone, there is no such exchange; moved, its charge is not
-- the p_expected that the caller reckoned from; negative, it would have cost less than nothing; short, a counter holds less
-- than is taken off it. All but applied change nothing. charged_nano is what the exchange comes to now.
create function correct(
  p_tenant text, p_id uuid, p_exchange_id uuid, p_arrived_unix_ns bigint, p_at timestamptz, p_at_unix_ns bigint, p_actor text,
  p_reason text, p_source text, p_provider text, p_nano bigint, p_lines jsonb, p_token text, p_expected_nano bigint
) returns table (state text, charged_nano bigint, levels text[])
language plpgsql security definer
set search_path = shipworthy, pg_temp
as $$
declare
  e        exchange;
  n        counter;
  v_levels text[] := '{}';
begin
  perform pg_advisory_xact_lock(hashtextextended('shipworthy.correction.' || p_exchange_id, 0));
  select * into e from exchange x
  where x.tenant = p_tenant and x.arrived_at = arrived_at(p_arrived_unix_ns) and x.id = p_exchange_id;
  if not found then
    state := 'gone';
    return next;
    return;
  end if;
  select e.charged_nano + coalesce(sum(c.nano), 0) into charged_nano from correction c
  where c.tenant = p_tenant and c.exchange_id = p_exchange_id;
  select c.levels into levels from correction c where c.tenant = p_tenant and c.token = p_token;
  if found then
    state := 'known';
  elsif p_expected_nano is not null and charged_nano <> p_expected_nano then
    state := 'moved';
  elsif charged_nano + p_nano < 0 then
    state := 'negative';
  else
    for n in select * from counters_of(p_tenant, e.levels, e.arrived_at) loop
      v_levels := v_levels || (n.key || '@' || n.period);
      if n.charged_nano + p_nano < 0 then
        state := 'short';
        levels := array[n.key || '@' || n.period];
      end if;
    end loop;
  end if;
  if state is not null then
    return next;
    return;
  end if;
  insert into correction (
    tenant, id, exchange_id, arrived_at, arrived_unix_ns, at, at_unix_ns, actor, reason, source, provider, nano, lines,
    levels, token, team, use_case, subject, model
  ) values (
    p_tenant, p_id, p_exchange_id, e.arrived_at, e.arrived_unix_ns, p_at, p_at_unix_ns, p_actor, p_reason, p_source, p_provider,
    p_nano, p_lines, v_levels, p_token, e.team, e.use_case, e.subject, e.model
  );
  for n in select * from counters_of(p_tenant, v_levels, e.arrived_at) loop
    update counter t set charged_nano = t.charged_nano + p_nano
    where t.tenant = p_tenant and t.key = n.key and t.period = n.period and t.period_start = n.period_start;
  end loop;
  state := 'applied';
  charged_nano := charged_nano + p_nano;
  levels := v_levels;
  return next;
end $$;

-- With their exchanges, corrections go when retention ends: like expire(), it takes nothing younger than an hour.
create function expire_corrections(p_rows_before timestamptz, p_limit int) returns bigint
language plpgsql security definer
set search_path = shipworthy, pg_temp
set lock_timeout = '2s'
as $$
declare
  v_gone bigint;
begin
  delete from correction c using (
    select tenant, id from correction
    where arrived_at < least(p_rows_before, clock_timestamp() - interval '1 hour') limit p_limit) o
  where (c.tenant, c.id) = (o.tenant, o.id);
  get diagnostics v_gone = row_count;
  return v_gone;
end $$;

revoke execute on function correct, counters_of, expire_corrections from public;
grant execute on function correct, expire_corrections to shipworthy_operator;

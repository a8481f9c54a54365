-- Cost by the hour, and by longer units of time: a report over millions of rows reads sums, and equals the rows at every moment.
--
-- Time is cut into slots of five minutes. A slot is open until `sum_costs`, a job of the control plane, has added its rows to the
-- sums of their hours and marked it, in one transaction. A row that comes later than that is listed in cost_late until it is added
-- too. Longer units are folded out of shorter ones when they are over: six hours, a day, eight days of a month, a month. So whoever
-- reads in one snapshot finds each row once: in the sums, in an open slot, or in cost_late. If nobody sums, reports get slower and
-- stay exact; whoever writes the record pays next to nothing and waits for no other writer.
--
-- Locks: a writer shares the slot's advisory lock from its insert to its commit; `sum_costs` takes it exclusively, without
-- waiting, so that no row of a slot is on its way while the slot is summed. Whoever changes sums holds the lock of sum_lock().
-- No role of the server may write any of these tables: rows of the record come in by a trigger, and leave it by `expire`.

create table cost_sum (
  tenant        text not null check (tenant <> ''),
  dimension     text collate "C" not null check (dimension in ('tenant', 'team', 'use-case', 'model', 'principal')),
  span          text collate "C" not null check (span in ('hour', 'quarter', 'day', 'week', 'month')),
  at            timestamptz not null,            -- when it began, UTC
  name          text collate "C" not null,
  parts         bigint not null,                 -- of rows, as parts_of() tells them; 0 = nothing is left of it
  served        bigint not null,
  refused       bigint not null,
  cut           bigint not null,
  failed        bigint not null,
  abandoned     bigint not null,
  input_tokens  numeric not null,                -- what the record took, its sums must take: no bound
  output_tokens numeric not null,
  charged_nano  numeric not null,
  overrun_nano  numeric not null,
  primary key (tenant, dimension, span, at, name)
) partition by range (at);

-- Operators sum every tenant; principals are too many for a second index.
create index cost_sum_everywhere on cost_sum (dimension, span, at) where dimension <> 'principal';

create table cost_slot (
  tenant text not null check (tenant <> ''),
  at     timestamptz not null,
  summed boolean not null default false,
  primary key (tenant, at)
) partition by range (at);

create index cost_slot_open on cost_slot (at, tenant) where not summed;

-- Units in which something was summed. One that is folded has sums of its own, and so have all units within it.
create table cost_unit (
  tenant text not null check (tenant <> ''),
  span   text collate "C" not null check (span in ('quarter', 'day', 'week', 'month')),
  at     timestamptz not null,
  ends   timestamptz not null,
  folded boolean not null,
  primary key (tenant, span, at)
);

create index cost_unit_unfolded on cost_unit (at, tenant) where not folded;

-- Rows that came when their slot was summed already. Of a slot that is open again they say nothing.
create table cost_late (
  tenant     text not null check (tenant <> ''),
  arrived_at timestamptz not null,
  id         uuid not null,
  primary key (tenant, arrived_at, id)
);

create table cost_sum_default partition of cost_sum default;
create table cost_slot_default partition of cost_slot default;

do $$
declare
  name text;
begin
  foreach name in array array['cost_sum', 'cost_sum_default', 'cost_slot', 'cost_slot_default', 'cost_unit', 'cost_late'] loop
    execute format('alter table %I enable row level security, force row level security', name);
    continue when name like '%\_default';
    execute format('grant select on %I to shipworthy_app, shipworthy_operator', name);
    execute format($p$create policy %1$s_app_select on %1$I for select to shipworthy_app
      using (tenant = nullif((select current_setting('app.tenant', true)), ''))$p$, name);
    execute format('create policy %1$s_operator_select on %1$I for select to shipworthy_operator using (true)', name);
    execute format('create policy %1$s_owner on %1$I for all to current_user using (true)', name);
  end loop;
end $$;

-- ------------------------------------------------------------------------------------------------ what a row adds

create function slot_of(p_at timestamptz) returns timestamptz
language sql immutable as $$ select date_bin('5 minutes', p_at, timestamptz '1970-01-01 00:00:00+00') $$;

create function hour_of(p_at timestamptz) returns timestamptz
language sql immutable as $$ select date_bin('1 hour', p_at, timestamptz '1970-01-01 00:00:00+00') $$;

-- The unit in which a moment lies, UTC. A week here has eight days and begins on the 1st, 9th, 17th or 25th, the last one ends with
-- its month: so that each unit lies within one of the next longer ones, and within a month of the record.
create function unit_of(p_span text, p_at timestamptz, out at timestamptz, out ends timestamptz)
language sql immutable as $$
  select u.at at time zone 'UTC',
         case p_span when 'quarter' then u.at + interval '6 hours' when 'day' then u.at + interval '1 day'
                     when 'week' then least(u.at + interval '8 days' * case m.week when 3 then 2 else 1 end,
                                            m.at + interval '1 month')
                     else m.at + interval '1 month' end at time zone 'UTC'
  from (select p_at at time zone 'UTC' as at) t
  cross join lateral (select date_trunc('month', t.at) as at, least(3, (extract(day from t.at)::int - 1) / 8) as week) m
  cross join lateral (
    select case p_span when 'quarter' then date_bin('6 hours', t.at, timestamp '1970-01-01 00:00:00')
                       when 'day' then date_trunc('day', t.at) when 'week' then m.at + interval '8 days' * m.week
                       else m.at end as at) u
$$;

create function within(p_span text) returns text
language sql immutable as $$
  select case p_span when 'quarter' then 'hour' when 'day' then 'quarter' when 'week' then 'day' when 'month' then 'week' end
$$;

create function is_input(p_component text) returns boolean
language sql immutable as $$
  select p_component in ('input_tokens', 'cache_read_input_tokens', 'cache_write_input_tokens', 'input_audio_tokens')
$$;

create function is_output(p_component text) returns boolean
language sql immutable as $$ select p_component in ('output_tokens', 'reasoning_output_tokens', 'output_audio_tokens') $$;

-- One row's parts, each of one model: its count and overrun at the model that answered, and there too whatever its charge holds
-- that its lines do not (nothing, unless a row is wrong); tokens and money of each charge line at the line's own model.
create function parts_of(p_model text, p_outcome text, p_lines jsonb, p_charged bigint, p_overrun bigint)
returns table (
  model text, served int, refused int, cut int, failed int, abandoned int, input_tokens numeric, output_tokens numeric,
  charged_nano numeric, overrun_nano bigint
)
language sql immutable as $$
  select p_model, (p_outcome = 'served')::int, (p_outcome = 'refused')::int, (p_outcome = 'cut')::int,
         (p_outcome = 'failed')::int, (p_outcome = 'abandoned')::int, 0::numeric, 0::numeric,
         p_charged - coalesce((select sum((l -> 'amount_nano')::numeric) from jsonb_array_elements(p_lines) l), 0), p_overrun
  union all
  select coalesce(l ->> 'model', ''), 0, 0, 0, 0, 0,
         case when is_input(l ->> 'component') then (l -> 'quantity')::numeric else 0 end,
         case when is_output(l ->> 'component') then (l -> 'quantity')::numeric else 0 end,
         (l -> 'amount_nano')::numeric, 0::bigint
  from jsonb_array_elements(p_lines) l
$$;

-- Adds to the sums of the hours, and of units that are folded (p_sign 1), or takes from them (-1), one tenant's rows: those of whole slots but the late ones, and those that
-- are named. The caller holds the lock of sum_lock().
create function add_costs(p_sign int, p_tenant text, p_slots timestamptz[], p_arrived timestamptz[], p_ids uuid[]) returns void
language plpgsql
set work_mem = '32MB'
set enable_memoize = off  -- no two rows are alike
as $$
declare
  v_span text;
begin
  foreach v_span in array array['month', 'week', 'day', 'quarter'] loop  -- one that appears within a folded one is folded too
    insert into cost_unit (tenant, span, at, ends, folded)
    select distinct p_tenant, v_span, u.at, u.ends,
           exists (select from cost_unit w where w.tenant = p_tenant and within(w.span) = v_span and w.folded
                   and w.span = any(array['month', 'week', 'day']) and w.at = (unit_of(w.span, u.at)).at)
    from unnest(p_slots || p_arrived) moved(at) cross join lateral unit_of(v_span, moved.at) u
    on conflict do nothing;
  end loop;
  insert into cost_sum as s (
    tenant, dimension, span, at, name, parts, served, refused, cut, failed, abandoned, input_tokens, output_tokens,
    charged_nano, overrun_nano
  )
  with meant as (
    select e.arrived_at, e.team, e.use_case, e.subject, e.model, e.outcome, e.charge_lines, e.charged_nano, e.overrun_nano
    from unnest(p_slots) slot(at) cross join lateral (
      select x.arrived_at, x.id, x.team, x.use_case, x.subject, x.model, x.outcome, x.charge_lines, x.charged_nano, x.overrun_nano
      from exchange x
      where x.tenant = p_tenant and x.arrived_at >= slot.at and x.arrived_at < slot.at + interval '5 minutes' offset 0) e
    where not exists (
      select from cost_late l where l.tenant = p_tenant and l.arrived_at = e.arrived_at and l.id = e.id)
    union all
    select e.arrived_at, e.team, e.use_case, e.subject, e.model, e.outcome, e.charge_lines, e.charged_nano, e.overrun_nano
    from unnest(p_arrived, p_ids) named(arrived_at, id) cross join lateral (
      select x.arrived_at, x.team, x.use_case, x.subject, x.model, x.outcome, x.charge_lines, x.charged_nano, x.overrun_nano
      from exchange x where x.tenant = p_tenant and x.arrived_at = named.arrived_at and x.id = named.id offset 0) e
  ), hourly as (
    select hour_of(e.arrived_at) as at,
           case grouping(e.team, e.use_case, p.model, e.subject)
              when 7 then 'team' when 11 then 'use-case' when 13 then 'model' else 'principal' end as dimension,
           coalesce(e.team, e.use_case, p.model, e.subject) as name,
           count(*) as parts, sum(p.served) as served, sum(p.refused) as refused, sum(p.cut) as cut, sum(p.failed) as failed,
           sum(p.abandoned) as abandoned, sum(p.input_tokens) as input_tokens, sum(p.output_tokens) as output_tokens,
           sum(p.charged_nano) as charged_nano, sum(p.overrun_nano) as overrun_nano
    from meant e
    cross join lateral parts_of(e.model, e.outcome, e.charge_lines, e.charged_nano, e.overrun_nano) p
    group by grouping sets ((1, e.team), (1, e.use_case), (1, p.model), (1, e.subject))
  ), told as (
    select * from hourly
    union all
    select at, 'tenant', p_tenant, sum(parts), sum(served), sum(refused), sum(cut), sum(failed), sum(abandoned),
           sum(input_tokens), sum(output_tokens), sum(charged_nano), sum(overrun_nano)
    from hourly where dimension = 'team' group by at
  ), spanned as (
    select 'hour' as span, * from told
    union all
    select f.span, f.at, t.dimension, t.name, sum(t.parts), sum(t.served), sum(t.refused), sum(t.cut), sum(t.failed),
           sum(t.abandoned), sum(t.input_tokens), sum(t.output_tokens), sum(t.charged_nano), sum(t.overrun_nano)
    from (select distinct at from told) h
    cross join unnest(array['quarter', 'day', 'week', 'month']) w(span)
    cross join lateral unit_of(w.span, h.at) u
    join cost_unit f on f.tenant = p_tenant and f.span = w.span and f.at = u.at and f.folded
    join told t on t.at = h.at
    group by f.span, f.at, t.dimension, t.name
  )
  select p_tenant, dimension, span, at, name, p_sign * parts, p_sign * served, p_sign * refused, p_sign * cut, p_sign * failed,
         p_sign * abandoned, p_sign * input_tokens, p_sign * output_tokens, p_sign * charged_nano, p_sign * overrun_nano
  from spanned
  on conflict (tenant, dimension, span, at, name) do update set
    parts = s.parts + excluded.parts, served = s.served + excluded.served, refused = s.refused + excluded.refused,
    cut = s.cut + excluded.cut, failed = s.failed + excluded.failed, abandoned = s.abandoned + excluded.abandoned,
    input_tokens = s.input_tokens + excluded.input_tokens, output_tokens = s.output_tokens + excluded.output_tokens,
    charged_nano = s.charged_nano + excluded.charged_nano, overrun_nano = s.overrun_nano + excluded.overrun_nano;
end $$;

-- A unit's sums from those of the units within it, written side by side in the order in which they are read.
create function fold_unit(p_tenant text, p_span text, p_at timestamptz, p_ends timestamptz) returns void
language plpgsql
set work_mem = '32MB'
as $$
begin
  insert into cost_sum (
    tenant, dimension, span, at, name, parts, served, refused, cut, failed, abandoned, input_tokens, output_tokens,
    charged_nano, overrun_nano
  )
  select p_tenant, s.dimension, p_span, p_at, s.name, sum(s.parts), sum(s.served), sum(s.refused), sum(s.cut), sum(s.failed),
         sum(s.abandoned), sum(s.input_tokens), sum(s.output_tokens), sum(s.charged_nano), sum(s.overrun_nano)
  from unnest(array['tenant', 'team', 'use-case', 'model', 'principal']) told(dimension)
  join cost_sum s on s.tenant = p_tenant and s.dimension = told.dimension and s.span = within(p_span)
                 and s.at >= p_at and s.at < p_ends
  group by s.dimension, s.name order by s.dimension, s.name;
  update cost_unit u set folded = true where u.tenant = p_tenant and u.span = p_span and u.at = p_at;
end $$;

-- ------------------------------------------------------------------------------------------------ rows come in

create function slot_lock(p_tenant text, p_at timestamptz) returns bigint
language sql immutable as $$
  select hashtextextended('shipworthy.cost.' || p_tenant, extract(epoch from p_at)::bigint)
$$;

create function sum_lock() returns bigint
language sql immutable as $$ select hashtextextended('shipworthy.costs', 0) $$;

create function require_read_committed() returns void
language plpgsql as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'costs are kept in read committed, not in %', current_setting('transaction_isolation');
  end if;
end $$;

-- Each slot that a statement adds rows to is known from now on; rows of one that was summed are late. Whether it was is asked
-- after its lock was taken, by a statement that sees what was committed until then: hence read committed.
create function note_costs() returns trigger
language plpgsql security definer
set search_path = shipworthy, pg_temp
as $$
declare
  r        record;
  v_summed boolean;
begin
  perform require_read_committed();
  for r in
    select m.tenant collate "C" as tenant, slot_of(m.arrived_at) as at from moved m group by 1, 2 order by 1, 2
  loop
    perform pg_advisory_xact_lock_shared(slot_lock(r.tenant, r.at));
    select s.summed into v_summed from cost_slot s where s.tenant = r.tenant and s.at = r.at;
    if not found then
      insert into cost_slot (tenant, at) values (r.tenant, r.at) on conflict do nothing;
    elsif v_summed then
      insert into cost_late (tenant, arrived_at, id)
      select m.tenant, m.arrived_at, m.id from moved m where m.tenant = r.tenant and slot_of(m.arrived_at) = r.at;
    end if;
  end loop;
  return null;
end $$;

-- Whoever deletes a row by hand would leave its cost in the sums.
create function refuse_to_lie() returns trigger
language plpgsql security definer
set search_path = shipworthy, pg_temp
as $$
begin
  if exists (select from moved m join cost_slot s on s.tenant = m.tenant and s.at = slot_of(m.arrived_at) where s.summed) then
    raise exception 'the cost of these rows is summed'
      using hint = 'Let expire() remove rows, or call reopen_costs() for their slots in the same transaction first.';
  end if;
  return null;
end $$;

-- ------------------------------------------------------------------------------------------------ slots are summed

-- Open slots that ended p_lag ago or earlier, oldest first, as many of an hour of a tenant at once as go fast; rows that were late;
-- units that are over. Begins nothing new after p_seconds. Returns whether there is more to do. One at a time: where another is at it, there is nothing to do.
create function sum_costs(p_seconds double precision, p_lag interval default '1 minute', p_now timestamptz default null)
returns boolean
language plpgsql security definer
set search_path = shipworthy, pg_temp
as $$
declare
  r       record;
  v_slots timestamptz[];
  v_began timestamptz := clock_timestamp();
  v_ends  timestamptz := v_began + make_interval(secs => p_seconds);
  v_take  int := 1;
  v_found int := 0;
  v_late  int := 0;
  v_units int := 0;
begin
  perform require_read_committed();
  if not pg_try_advisory_xact_lock(sum_lock()) then
    return false;
  end if;
  for r in
    select s.tenant, array_agg(s.at order by s.at) as slots
    from (select o.tenant, o.at from cost_slot o
          where not o.summed and o.at < coalesce(p_now, clock_timestamp()) - p_lag - interval '5 minutes'
          order by o.at, o.tenant limit 500) s
    group by s.tenant, hour_of(s.at)
    order by min(s.at), s.tenant
  loop
    v_found := v_found + cardinality(r.slots);
    while r.slots <> '{}' loop
      if clock_timestamp() >= v_ends then
        return true;
      end if;
      v_began := clock_timestamp();
      v_slots := array(select at from unnest(r.slots[:v_take]) at where pg_try_advisory_xact_lock(slot_lock(r.tenant, at)));
      r.slots := r.slots[v_take + 1:];
      delete from cost_late l using unnest(v_slots) slot(at)
      where l.tenant = r.tenant and l.arrived_at >= slot.at and l.arrived_at < slot.at + interval '5 minutes';
      perform add_costs(1, r.tenant, v_slots, '{}', '{}');
      update cost_slot s set summed = true where s.tenant = r.tenant and s.at = any(v_slots);
      v_take := case when clock_timestamp() < v_began + interval '0.5 seconds' then least(12, v_take * 2) else 1 end;
    end loop;
  end loop;
  for r in
    with late as (
      delete from cost_late l using (
        select o.tenant, o.arrived_at, o.id
        from cost_late o join cost_slot s on s.tenant = o.tenant and s.at = slot_of(o.arrived_at)
        where s.summed limit 5000) o
      where (l.tenant, l.arrived_at, l.id) = (o.tenant, o.arrived_at, o.id)
      returning l.tenant, l.arrived_at, l.id
    )
    select l.tenant, array_agg(l.arrived_at) as arrived, array_agg(l.id) as ids from late l group by l.tenant
  loop
    perform add_costs(1, r.tenant, '{}', r.arrived, r.ids);
    v_late := v_late + cardinality(r.ids);
  end loop;
  for r in
    select u.tenant, u.span, u.at, u.ends from cost_unit u
    where not u.folded and u.ends < coalesce(p_now, clock_timestamp()) - interval '1 hour'
      and not exists (select from cost_slot s where s.tenant = u.tenant and not s.summed and s.at >= u.at and s.at < u.ends)
      and not exists (select from cost_unit w where w.tenant = u.tenant and w.span = within(u.span) and not w.folded
                      and w.at >= u.at and w.at < u.ends)
    order by u.at, u.tenant limit 100
  loop
    if clock_timestamp() >= v_ends then
      return true;
    end if;
    perform fold_unit(r.tenant, r.span, r.at, r.ends);
    v_units := v_units + 1;
  end loop;
  return v_found = 500 or v_late = 5000 or v_units > 0;
end $$;

-- Takes slots out of the sums, so that their rows may be deleted in this transaction. What is late stays so: an open slot's rows
-- are read as they are.
create function reopen_costs(p_tenant text, p_slots timestamptz[]) returns void
language plpgsql
as $$
begin
  perform require_read_committed();
  perform pg_advisory_xact_lock(sum_lock());
  p_slots := array(select s.at from cost_slot s where s.tenant = p_tenant and s.at = any(p_slots) and s.summed);
  perform add_costs(-1, p_tenant, p_slots, '{}', '{}');
  update cost_slot s set summed = false where s.tenant = p_tenant and s.at = any(p_slots);
end $$;

revoke execute on function add_costs, fold_unit, note_costs, refuse_to_lie, sum_costs, reopen_costs from public;
grant execute on function sum_costs to shipworthy_operator;

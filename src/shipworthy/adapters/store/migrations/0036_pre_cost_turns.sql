-- Costs are summed for many tenants at once. Slots of as many tenants as go fast are one statement, and plans are made once: with
-- a thousand small tenants, one slot after the other took longer than the slots took to come.
--
-- What 0024 and 0028 made is replaced, under the same names for those who call it: `sum_costs`, `expire`, and the trigger's function.
-- What only they call is made anew; a call of the release before that is under way ends with an error, and its next turn goes on.

drop function add_costs(int, text, timestamptz[], timestamptz[], uuid[]);
drop function reopen_costs(text, timestamptz[]);
drop function unit_of(text, timestamptz);

-- The unit in which a moment lies, UTC. A week here has eight days and begins on the 1st, 9th, 17th or 25th, the last one ends with
-- its month: so that each unit lies within one of the next longer ones, and within a month of the record.
create function unit_of(p_span text, p_at timestamptz) returns table (at timestamptz, ends timestamptz)
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

-- Adds to the sums of the hours, and of units that are folded (p_sign 1), or takes from them (-1): the rows of whole slots but the
-- late ones, and rows that are named. The caller holds the lock of sum_lock().
create function add_costs(
  p_sign int, p_tenants text[], p_slots timestamptz[], p_named_tenants text[], p_arrived timestamptz[], p_ids uuid[]
) returns void
language plpgsql
set work_mem = '32MB'
set enable_memoize = off                    -- no two rows are alike
set plan_cache_mode = force_generic_plan    -- planning would take longer than a small slot does
as $$
declare
  v_span  text;
  v_outer text;
begin
  foreach v_span in array array['month', 'week', 'day', 'quarter'] loop  -- one that appears within a folded one is folded too
    insert into cost_unit (tenant, span, at, ends, folded)
    select distinct h.tenant, v_span, u.at, u.ends, coalesce(w.folded, false)
    from (select distinct m.tenant, hour_of(m.at) as at
          from unnest(p_tenants || p_named_tenants, p_slots || p_arrived) m(tenant, at)) h
    cross join lateral unit_of(v_span, h.at) u cross join lateral unit_of(v_outer, h.at) o
    left join cost_unit w on w.tenant = h.tenant and w.span = v_outer and w.at = o.at
    on conflict do nothing;
    v_outer := v_span;
  end loop;
  insert into cost_sum as s (
    tenant, dimension, span, at, name, parts, served, refused, cut, failed, abandoned, input_tokens, output_tokens,
    charged_nano, overrun_nano
  )
  with meant as (
    select e.*
    from unnest(p_tenants, p_slots) slot(tenant, at) cross join lateral (
      select x.tenant, x.arrived_at, x.id, x.team, x.use_case, x.subject, x.model, x.outcome, x.charge_lines, x.charged_nano,
             x.overrun_nano
      from exchange x
      where x.tenant = slot.tenant and x.arrived_at >= slot.at and x.arrived_at < slot.at + interval '5 minutes' offset 0) e
    where not exists (
      select from cost_late l where l.tenant = e.tenant and l.arrived_at = e.arrived_at and l.id = e.id)
    union all
    select e.*
    from unnest(p_named_tenants, p_arrived, p_ids) named(tenant, arrived_at, id) cross join lateral (
      select x.tenant, x.arrived_at, x.id, x.team, x.use_case, x.subject, x.model, x.outcome, x.charge_lines, x.charged_nano,
             x.overrun_nano
      from exchange x where x.tenant = named.tenant and x.arrived_at = named.arrived_at and x.id = named.id offset 0) e
  ), hourly as (
    select e.tenant, hour_of(e.arrived_at) as at,
           case grouping(e.team, e.use_case, p.model, e.subject)
              when 7 then 'team' when 11 then 'use-case' when 13 then 'model' else 'principal' end as dimension,
           coalesce(e.team, e.use_case, p.model, e.subject) as name,
           count(*) as parts, sum(p.served) as served, sum(p.refused) as refused, sum(p.cut) as cut, sum(p.failed) as failed,
           sum(p.abandoned) as abandoned, sum(p.input_tokens) as input_tokens, sum(p.output_tokens) as output_tokens,
           sum(p.charged_nano) as charged_nano, sum(p.overrun_nano) as overrun_nano
    from meant e
    cross join lateral parts_of(e.model, e.outcome, e.charge_lines, e.charged_nano, e.overrun_nano) p
    group by grouping sets ((1, 2, e.team), (1, 2, e.use_case), (1, 2, p.model), (1, 2, e.subject))
  ), told as (
    select * from hourly
    union all
    select tenant, at, 'tenant', tenant, sum(parts), sum(served), sum(refused), sum(cut), sum(failed), sum(abandoned),
           sum(input_tokens), sum(output_tokens), sum(charged_nano), sum(overrun_nano)
    from hourly where dimension = 'team' group by tenant, at
  ), spanned as (
    select 'hour' as span, * from told
    union all
    select f.span, f.tenant, f.at, t.dimension, t.name, sum(t.parts), sum(t.served), sum(t.refused), sum(t.cut),
           sum(t.failed), sum(t.abandoned), sum(t.input_tokens), sum(t.output_tokens), sum(t.charged_nano), sum(t.overrun_nano)
    from (select distinct tenant, at from told) h
    cross join unnest(array['quarter', 'day', 'week', 'month']) w(span)
    cross join lateral unit_of(w.span, h.at) u
    join cost_unit f on f.tenant = h.tenant and f.span = w.span and f.at = u.at and f.folded
    join told t on t.tenant = h.tenant and t.at = h.at
    group by f.span, f.tenant, f.at, t.dimension, t.name
  )
  select tenant, dimension, span, at, name, p_sign * parts, p_sign * served, p_sign * refused, p_sign * cut, p_sign * failed,
         p_sign * abandoned, p_sign * input_tokens, p_sign * output_tokens, p_sign * charged_nano, p_sign * overrun_nano
  from spanned
  order by tenant, dimension, span, at, name collate "C"
  on conflict (tenant, dimension, span, at, name) do update set
    parts = s.parts + excluded.parts, served = s.served + excluded.served, refused = s.refused + excluded.refused,
    cut = s.cut + excluded.cut, failed = s.failed + excluded.failed, abandoned = s.abandoned + excluded.abandoned,
    input_tokens = s.input_tokens + excluded.input_tokens, output_tokens = s.output_tokens + excluded.output_tokens,
    charged_nano = s.charged_nano + excluded.charged_nano, overrun_nano = s.overrun_nano + excluded.overrun_nano;
end $$;

-- A unit's sums from those of the units within it, written side by side in the order in which they are read.
create or replace function fold_unit(p_tenant text, p_span text, p_at timestamptz, p_ends timestamptz) returns void
language plpgsql
set work_mem = '32MB'
set plan_cache_mode = force_generic_plan
as $$
begin
  insert into cost_sum (
    tenant, dimension, span, at, name, parts, served, refused, cut, failed, abandoned, input_tokens, output_tokens,
    charged_nano, overrun_nano
  )
  select p_tenant, s.dimension, p_span, p_at, s.name, sum(s.parts), sum(s.served), sum(s.refused), sum(s.cut), sum(s.failed),
         sum(s.abandoned), sum(s.input_tokens), sum(s.output_tokens), sum(s.charged_nano), sum(s.overrun_nano)
  from unnest(array['tenant', 'team', 'use-case', 'model', 'principal']) told(dimension)
  cross join lateral (
    select * from cost_sum c
    where c.tenant = p_tenant and c.dimension = told.dimension and c.span = within(p_span) and c.at >= p_at and c.at < p_ends
    offset 0) s
  group by s.dimension, s.name order by s.dimension, s.name;
  update cost_unit u set folded = true where u.tenant = p_tenant and u.span = p_span and u.at = p_at;
end $$;

-- Each slot that a statement adds rows to is known from now on; rows of one that was summed are late. Whether it was is asked
-- after its lock was taken, by a statement that sees what was committed until then: hence read committed.
create or replace function note_costs() returns trigger
language plpgsql security definer
set search_path = shipworthy, pg_temp
as $$
declare
  r        record;
  v_summed boolean;
begin
  perform require_read_committed();
  for r in
    select m.tenant, slot_of(m.arrived_at) as at from moved m group by 1, 2 order by m.tenant collate "C", 2
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

-- Open slots that ended p_lag ago or earlier, oldest first, as many at once as go fast; rows that were late; units that are over.
-- Begins nothing new after p_seconds. Returns whether there is more to do. One at a time: where another is at it, there is nothing
-- to do.
create or replace function sum_costs(p_seconds double precision, p_lag interval default '1 minute', p_now timestamptz default null)
returns boolean
language plpgsql security definer
set search_path = shipworthy, pg_temp
as $$
declare
  v_ends    timestamptz := clock_timestamp() + make_interval(secs => p_seconds);
  v_now     timestamptz := coalesce(p_now, clock_timestamp());
  v_began   timestamptz;
  v_tenants text[];
  v_slots   timestamptz[];
  v_arrived timestamptz[];
  v_ids     uuid[];
  v_taken   int := 0;
  v_take    int := 4;
  v_more    boolean;
  r         record;
begin
  perform require_read_committed();
  if not pg_try_advisory_xact_lock(sum_lock()) then
    return false;
  end if;
  while v_taken < 1000 loop
    v_began := clock_timestamp();
    select array_agg(o.tenant), array_agg(o.at), count(*) = v_take into v_tenants, v_slots, v_more
    from (select s.tenant, s.at from cost_slot s
          where not s.summed and s.at < v_now - p_lag - interval '5 minutes' order by s.at, s.tenant limit v_take) o
    where pg_try_advisory_xact_lock(slot_lock(o.tenant, o.at));
    exit when v_tenants is null;
    perform add_costs(1, v_tenants, v_slots, '{}', '{}', '{}');
    update cost_slot s set summed = true from unnest(v_tenants, v_slots) slot(tenant, at)
    where s.tenant = slot.tenant and s.at = slot.at;
    exit when not v_more;
    v_taken := v_taken + v_take;
    if clock_timestamp() >= v_ends then
      return true;
    end if;
    v_take := case when clock_timestamp() < v_began + interval '0.3 seconds' then least(v_take * 2, 200)
                   else greatest(v_take / 2, 1) end;
  end loop;
  with late as (
    delete from cost_late l using (
      select o.tenant, o.arrived_at, o.id
      from cost_late o join cost_slot s on s.tenant = o.tenant and s.at = slot_of(o.arrived_at)
      where s.summed limit 5000) o
    where (l.tenant, l.arrived_at, l.id) = (o.tenant, o.arrived_at, o.id)
    returning l.tenant, l.arrived_at, l.id
  )
  select array_agg(tenant), array_agg(arrived_at), array_agg(id) into v_tenants, v_arrived, v_ids from late;
  if v_tenants is not null then
    perform add_costs(1, '{}', '{}', v_tenants, v_arrived, v_ids);
  end if;
  v_more := v_taken >= 1000 or cardinality(v_ids) = 5000;
  for r in
    select u.tenant, u.span, u.at, u.ends from cost_unit u
    where not u.folded and u.ends < v_now - interval '1 hour'  -- offset 0: one after the other, in this order
      and not exists (select from cost_slot s where s.tenant = u.tenant and not s.summed
                      and s.at >= u.at and s.at < u.ends offset 0)
      and not exists (select from cost_unit w where w.tenant = u.tenant and w.span = within(u.span) and not w.folded
                      and w.at >= u.at and w.at < u.ends offset 0)
    order by u.at, u.tenant limit 500
  loop
    if clock_timestamp() >= v_ends then
      return true;
    end if;
    perform fold_unit(r.tenant, r.span, r.at, r.ends);
    v_more := true;
  end loop;
  return v_more;
end $$;

-- Takes slots out of the sums, so that their rows may be deleted in this transaction. What is late stays so: an open slot's rows
-- are read as they are.
create function reopen_costs(p_tenants text[], p_slots timestamptz[]) returns void
language plpgsql
as $$
begin
  perform require_read_committed();
  perform pg_advisory_xact_lock(sum_lock());
  select coalesce(array_agg(s.tenant), '{}'), coalesce(array_agg(s.at), '{}') into p_tenants, p_slots
  from (select distinct o.tenant, o.at from unnest(p_tenants, p_slots) o(tenant, at)) slot
  join cost_slot s on s.tenant = slot.tenant and s.at = slot.at and s.summed;
  perform add_costs(-1, p_tenants, p_slots, '{}', '{}', '{}');
  update cost_slot s set summed = false from unnest(p_tenants, p_slots) slot(tenant, at)
  where s.tenant = slot.tenant and s.at = slot.at;
end $$;

-- As in 0005, with the sums: slots are opened before rows of theirs are deleted.
create or replace function expire(p_rows_before timestamptz, p_bodies_before timestamptz, p_limit int)
returns table (bodies bigint, exchanges bigint, acts bigint, months text[])
language plpgsql security definer
set search_path = shipworthy, pg_temp
set timezone = 'UTC'
set lock_timeout = '2s'
as $$
declare
  v_partition text;
  v_tenants   text[];
  v_arrived   timestamptz[];
  v_ids       uuid[];
begin
  p_rows_before := least(p_rows_before, clock_timestamp() - interval '1 hour');
  p_bodies_before := least(p_bodies_before, clock_timestamp() - interval '1 hour');
  months := '{}';
  perform pg_advisory_xact_lock(sum_lock());
  for v_partition in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent in ('exchange'::regclass, 'body'::regclass) and c.relname ~ '_\d{4}_\d{2}$'
      and to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month'
        <= case i.inhparent when 'body'::regclass then p_bodies_before else p_rows_before end
    order by 1
  loop
    execute format('drop table %I', v_partition);
    if v_partition like 'exchange%' then
      perform expire_sums(to_date(right(v_partition, 7), 'YYYY_MM'));
    end if;
    months := months || v_partition;
  end loop;
  delete from body b using (
    select tenant, arrived_at, exchange_id, part from body where arrived_at < p_bodies_before limit p_limit) o
  where (b.tenant, b.arrived_at, b.exchange_id, b.part) = (o.tenant, o.arrived_at, o.exchange_id, o.part);
  get diagnostics bodies = row_count;
  select array_agg(o.tenant), array_agg(o.arrived_at), array_agg(o.id) into v_tenants, v_arrived, v_ids
  from (select tenant, arrived_at, id from exchange where arrived_at < p_rows_before order by arrived_at limit p_limit) o;
  perform reopen_costs(v_tenants, array(select slot_of(at) from unnest(v_arrived) with ordinality a(at, place) order by place));
  delete from exchange e using unnest(v_tenants, v_arrived, v_ids) o(tenant, arrived_at, id)
  where (e.tenant, e.arrived_at, e.id) = (o.tenant, o.arrived_at, o.id);
  get diagnostics exchanges = row_count;
  delete from admin_act a using (select tenant, at, id from admin_act where at < p_rows_before limit p_limit) o
  where (a.tenant, a.at, a.id) = (o.tenant, o.at, o.id);
  get diagnostics acts = row_count;
  return next;
end $$;

revoke execute on function add_costs, reopen_costs from public;

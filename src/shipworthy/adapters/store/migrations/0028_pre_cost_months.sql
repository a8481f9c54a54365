-- The cost sums go with the record: their months are made and dropped with its months, and from here on they are kept.

-- As in 0001, with the sums' own months.
create or replace function prepare_partitions(p_months_ahead int, p_from timestamptz default clock_timestamp())
returns table (partition text, state text)
language plpgsql security definer
set search_path = shipworthy, pg_temp
set timezone = 'UTC'
set lock_timeout = '2s'
as $$
declare
  v_parent text;
  v_month  timestamptz;
begin
  if p_months_ahead not between 0 and 24 then
    raise exception 'months ahead: wanted 0 to 24, got %', p_months_ahead;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('shipworthy.partitions', 0));
  foreach v_parent in array array['exchange', 'body', 'cost_sum', 'cost_slot'] loop
    for i in 0 .. p_months_ahead loop
      v_month := date_trunc('month', p_from) + make_interval(months => i);
      partition := v_parent || to_char(v_month, '_YYYY_MM');
      continue when to_regclass(partition) is not null;
      begin
        execute format('create table %I (like %I including defaults including constraints including storage)',
                       partition, v_parent);
        execute format('alter table %I enable row level security, force row level security', partition);
        execute format('alter table %I attach partition %I for values from (%L) to (%L)',
                       v_parent, partition, v_month, v_month + interval '1 month');
        state := 'created';
      exception
        when check_violation then state := 'skipped';
      end;
      return next;
    end loop;
  end loop;
end $$;

-- Sums end with their rows, so that the two stay equal: a month's go with the month.
create function expire_sums(p_month timestamptz) returns void
language plpgsql
set timezone = 'UTC'
as $$
declare
  v_table text;
begin
  foreach v_table in array array['cost_sum', 'cost_slot'] loop
    execute format('drop table if exists %I', v_table || to_char(p_month, '_YYYY_MM'));
    execute format('delete from %I where at >= %L and at < %L', v_table, p_month, p_month + interval '1 month');
  end loop;
  delete from cost_unit where at >= p_month and at < p_month + interval '1 month';
  delete from cost_late where arrived_at >= p_month and arrived_at < p_month + interval '1 month';
end $$;

revoke execute on function expire_sums from public;

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
  r           record;
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
  for r in
    select o.tenant, array_agg(distinct slot_of(o.arrived_at)) as slots
    from unnest(v_tenants, v_arrived) o(tenant, arrived_at) group by o.tenant order by o.tenant
  loop
    perform reopen_costs(r.tenant, r.slots);
  end loop;
  delete from exchange e using unnest(v_tenants, v_arrived, v_ids) o(tenant, arrived_at, id)
  where (e.tenant, e.arrived_at, e.id) = (o.tenant, o.arrived_at, o.id);
  get diagnostics exchanges = row_count;
  delete from admin_act a using (select tenant, at, id from admin_act where at < p_rows_before limit p_limit) o
  where (a.tenant, a.at, a.id) = (o.tenant, o.at, o.id);
  get diagnostics acts = row_count;
  return next;
end $$;

-- Creating a trigger waits for whoever adds rows and keeps others out until this is committed. What was recorded before is open,
-- and summed by and by.
create trigger exchange_added after insert on exchange referencing new table as moved
  for each statement execute function note_costs();
create trigger exchange_deleted after delete on exchange referencing old table as moved
  for each statement execute function refuse_to_lie();

do $$
declare
  v_month date;
begin
  for v_month in
    select to_date(right(c.relname, 7), 'YYYY_MM') from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'exchange'::regclass and c.relname ~ '_\d{4}_\d{2}$'
  loop
    perform prepare_partitions(0, v_month::timestamp at time zone 'UTC');
  end loop;
end $$;

insert into cost_slot (tenant, at) select tenant, slot_of(arrived_at) from exchange group by 1, 2;

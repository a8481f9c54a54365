-- A month that began in the default partition gets its own after all.
--
-- Rows are there whose month had no table when they came: nobody had made months ahead for longer than those last (a server that
-- was down for a season, and takes requests before its sweeper runs), or the clock of a machine ran ahead and the month has now
-- come. As long as they stay, `prepare_partitions` cannot make the month, every later row of it joins them, and retention must
-- delete them one by one instead of dropping a table.

do $$
declare
  r record;
begin
  for r in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
    where p.relnamespace = 'shipworthy'::regnamespace and c.relname like '%\_default'
  loop
    -- row-level security is forced on the owner too, whose rights `mend_partitions` runs with; nobody else gets here
    execute format('create policy %1$s_owner on %1$I for all to current_user using (true)', r.relname);
  end loop;
end $$;

-- Moves one month of one table, the earliest that is not beyond the months that are made ahead, and says which ('mended'). It is
-- one transaction: whoever reads sees each row once, before or after. Meanwhile the default partition waits, and whoever needs it;
-- so one that is larger than p_bytes_max is left as it is and named ('left'), for `shipworthy migrate` to mend. No row = there is
-- nothing to mend.
create function mend_partitions(p_months_ahead int, p_bytes_max bigint, p_now timestamptz default clock_timestamp())
returns table (partition text, state text)
language plpgsql security definer
set search_path = shipworthy, pg_temp
set timezone = 'UTC'
set lock_timeout = '2s'
as $$
declare
  r         record;
  v_default text;
  v_columns text;
  v_month   timestamptz;
  v_end     timestamptz := date_trunc('month', p_now) + make_interval(months => p_months_ahead + 1);
begin
  perform pg_advisory_xact_lock(hashtextextended('shipworthy.partitions', 0));
  for r in
    select p.relname as parent, a.attname as key
    from pg_partitioned_table t
    join pg_class p on p.oid = t.partrelid
    join pg_attribute a on a.attrelid = p.oid and a.attnum = t.partattrs[0]
    where p.relnamespace = 'shipworthy'::regnamespace and t.partdefid <> 0
    order by array_position(array['exchange', 'body'], p.relname::text), p.relname
  loop
    v_default := r.parent || '_default';
    if pg_table_size(v_default::regclass) > p_bytes_max then
      execute format('select exists (select from %I where %I < $1)', v_default, r.key) into strict state using v_end;
      if state::boolean then
        partition := v_default;
        state := 'left';
        return next;
      end if;
      continue;
    end if;
    execute format('select date_trunc(''month'', min(%I)) from %I where %1$I < $1', r.key, v_default) into v_month using v_end;
    continue when v_month is null;
    partition := r.parent || to_char(v_month, '_YYYY_MM');
    continue when to_regclass(partition) is not null;  -- somebody's own table: not ours to fill
    -- writers first: one that has chosen the default partition already, and waits for it, would fail once the month is attached
    execute format('lock table only %I in share row exclusive mode', r.parent);
    execute format('lock table %I in access exclusive mode', v_default);
    execute format('create table %I (like %I including defaults including constraints including storage)', partition, r.parent);
    v_columns := (select string_agg(quote_ident(c.attname), ', ' order by c.attnum) from pg_attribute c
                  where c.attrelid = r.parent::regclass and c.attnum > 0 and not c.attisdropped);
    execute format('with moved as (delete from %1$I where %2$I >= $1 and %2$I < $2 returning %3$s)'
                   ' insert into %4$I (%3$s) select %3$s from moved', v_default, r.key, v_columns, partition)
      using v_month, v_month + interval '1 month';
    execute format('alter table %I enable row level security, force row level security', partition);
    execute format('alter table %I attach partition %I for values from (%L) to (%L)',
                   r.parent, partition, v_month, v_month + interval '1 month');
    state := 'mended';
    return next;
    return;
  end loop;
end $$;

revoke execute on function mend_partitions from public;
grant execute on function mend_partitions to shipworthy_operator;

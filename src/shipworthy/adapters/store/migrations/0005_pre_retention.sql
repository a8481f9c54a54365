-- Retention: what is older than the manifest keeps it goes, whole months at once where they can. This is the only way in which
-- anything leaves the record; the operator may start it, and whatever it is asked it takes nothing younger than an hour.

create index body_arrival on body using brin (arrived_at);
create index admin_act_arrival on admin_act (at);

-- Row-level security is forced on the owner too, whose rights `expire` runs with.
create policy exchange_owner on exchange for all to current_user using (true);
create policy body_owner on body for all to current_user using (true);
create policy admin_act_owner on admin_act for all to current_user using (true);

create function expire(p_rows_before timestamptz, p_bodies_before timestamptz, p_limit int)
returns table (bodies bigint, exchanges bigint, acts bigint, months text[])
language plpgsql security definer
set search_path = shipworthy, pg_temp
set timezone = 'UTC'
set lock_timeout = '2s'
as $$
declare
  v_partition text;
begin
  p_rows_before := least(p_rows_before, clock_timestamp() - interval '1 hour');
  p_bodies_before := least(p_bodies_before, clock_timestamp() - interval '1 hour');
  months := '{}';
  for v_partition in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent in ('exchange'::regclass, 'body'::regclass) and c.relname ~ '_\d{4}_\d{2}$'
      and to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month'
        <= case i.inhparent when 'body'::regclass then p_bodies_before else p_rows_before end
    order by 1
  loop
    execute format('drop table %I', v_partition);
    months := months || v_partition;
  end loop;
  delete from body b using (
    select tenant, arrived_at, exchange_id, part from body where arrived_at < p_bodies_before limit p_limit) o
  where (b.tenant, b.arrived_at, b.exchange_id, b.part) = (o.tenant, o.arrived_at, o.exchange_id, o.part);
  get diagnostics bodies = row_count;
  delete from exchange e using (select tenant, arrived_at, id from exchange where arrived_at < p_rows_before limit p_limit) o
  where (e.tenant, e.arrived_at, e.id) = (o.tenant, o.arrived_at, o.id);
  get diagnostics exchanges = row_count;
  delete from admin_act a using (select tenant, at, id from admin_act where at < p_rows_before limit p_limit) o
  where (a.tenant, a.at, a.id) = (o.tenant, o.at, o.id);
  get diagnostics acts = row_count;
  return next;
end $$;

revoke execute on function expire from public;
grant execute on function expire to shipworthy_operator;

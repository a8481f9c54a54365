-- Who records waits no longer for who sums. A row that arrived in a slot's time and ended a minute later, as a long stream does,
-- found the slot locked for as long as its sum took, and with it waited its whole batch, its worker's leases, and every row behind.
--
-- Its rows are late now, as if the sum were done: what sums leaves out those that it finds listed in cost_late, and adds them by
-- name afterwards; while the slot is open, or if the sum fails, its rows are read as they are. So each still counts once.

create or replace function note_costs() returns trigger
language plpgsql security definer
set search_path = shipworthy, pg_temp
as $$
declare
  r        record;
  v_alone  boolean;  -- nobody sums the slot until we commit
  v_summed boolean;
begin
  perform require_read_committed();
  for r in
    select m.tenant, slot_of(m.arrived_at) as at from moved m group by 1, 2 order by m.tenant collate "C", 2
  loop
    v_alone := pg_try_advisory_xact_lock_shared(slot_lock(r.tenant, r.at));
    select s.summed into v_summed from cost_slot s where s.tenant = r.tenant and s.at = r.at;
    if not found then
      insert into cost_slot (tenant, at) values (r.tenant, r.at) on conflict do nothing;
    end if;
    if v_summed or not v_alone then
      insert into cost_late (tenant, arrived_at, id)
      select m.tenant, m.arrived_at, m.id from moved m where m.tenant = r.tenant and slot_of(m.arrived_at) = r.at;
    end if;
  end loop;
  return null;
end $$;

-- Counters go with their rows' retention: a budget a day for each of many end users must not fill the store for ever. What is
-- still held or on lease keeps its counter, whatever its age.

create policy counter_owner on counter for all to current_user using (true);
create policy pace_owner on pace for all to current_user using (true);

-- At most p_limit counters whose period ended before then, and as many sliding minutes in which nobody asked for a day.
create function expire_counters(p_before timestamptz, p_limit int) returns bigint
language plpgsql security definer
set search_path = shipworthy, pg_temp
set timezone = 'UTC'
as $$
declare
  v_before  timestamptz := least(p_before, clock_timestamp() - interval '1 hour');
  v_counters bigint;
begin
  delete from counter n using (
    select tenant, key, period, period_start from counter
    where coalesce(period_end, period_start + ('1 ' || period)::interval + interval '1 day') < v_before
      and held_nano = 0 and leased_nano = 0 and suspended_nano = 0
    order by tenant, key, period, period_start limit p_limit for update skip locked) o
  where (n.tenant, n.key, n.period, n.period_start) = (o.tenant, o.key, o.period, o.period_start);
  get diagnostics v_counters = row_count;
  delete from pace p using (
    select tenant, key from pace
    where head < extract(epoch from clock_timestamp() - interval '1 day')
      and in_flight = 0 and leased_requests = 0 and leased_tokens = 0 and leased_places = 0
    order by tenant, key limit p_limit for update skip locked) o
  where (p.tenant, p.key) = (o.tenant, o.key);
  return v_counters;
end $$;

revoke execute on function expire_counters from public;
grant execute on function expire_counters to shipworthy_operator;

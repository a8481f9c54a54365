-- Money and limits: counters of a period, sliding windows, holds.
--
-- At every level, after every step: charged + held + leased + suspended + free = cap, where free is what the others leave.
-- Locks are always taken in this order, within one tenant and tenants in the order of their names: holds by id, rows of the
-- record, counters by (key, period, start), paces by key; text in the order of its bytes.

create table counter (
  tenant         text not null check (tenant <> ''),
  key            text collate "C" not null,      -- model.policy.Level.key
  period         text collate "C" not null,
  period_start   timestamptz not null,
  cap_nano       bigint not null,                -- as the last reservation saw it
  charged_nano   bigint not null default 0 check (charged_nano >= 0),
  held_nano      bigint not null default 0 check (held_nano >= 0),
  leased_nano    bigint not null default 0 check (leased_nano >= 0),
  suspended_nano bigint not null default 0 check (suspended_nano >= 0),
  primary key (tenant, key, period, period_start)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);

-- A sliding minute in one row, so that one row lock serves: 61 slots of a second, because the second that is running and the
-- one that began 60 s ago both hold requests of the last minute. So it never admits more than the limit in any 60 s, and a
-- request counts for 60 to 61 s.
create table pace (
  tenant       text not null check (tenant <> ''),
  key          text collate "C" not null,
  head         bigint not null,                  -- unix seconds of the newest slot; a slot is at (second % 61) + 1
  requests     int[] not null,
  tokens       bigint[] not null,
  requests_sum int not null,
  tokens_sum   bigint not null,
  in_flight    int not null check (in_flight >= 0),
  primary key (tenant, key)
) with (fillfactor = 30, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);

create table hold (
  tenant      text not null check (tenant <> ''),
  id          uuid not null,                     -- the exchange's
  arrived_unix_ns bigint not null,               -- the exchange's: with its id it names the row
  claims      jsonb not null,                    -- of type claim[]
  amount_nano bigint not null check (amount_nano >= 0),
  tokens      bigint not null check (tokens >= 0),
  paced_s     bigint not null,                   -- the slot in which it counts
  worker      text not null,
  created_at  timestamptz not null default clock_timestamp(),
  expires_at  timestamptz not null,
  intent      bytea not null,                    -- the row as far as it is known: what the sweeper completes
  primary key (tenant, id)
) with (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);

do $$
declare
  name text;
begin
  foreach name in array array['counter', 'pace', 'hold'] loop
    execute format('alter table %I enable row level security, force row level security', name);
    execute format('grant select, insert, update on %I to shipworthy_app', name);
    execute format('grant select, update on %I to shipworthy_recorder', name);
    execute format('grant select on %I to shipworthy_operator', name);
    execute format($p$create policy %1$s_app on %1$I for all to shipworthy_app
      using (tenant = nullif((select current_setting('app.tenant', true)), ''))
      with check (tenant = nullif((select current_setting('app.tenant', true)), ''))$p$, name);
    execute format($p$create policy %1$s_recorder on %1$I for all to shipworthy_recorder
      using (tenant = nullif((select current_setting('app.tenant', true)), ''))
      with check (tenant = nullif((select current_setting('app.tenant', true)), ''))$p$, name);
    execute format('create policy %1$s_operator_select on %1$I for select to shipworthy_operator using (true)', name);
  end loop;
end $$;
grant insert on counter, pace to shipworthy_recorder;
grant delete on hold to shipworthy_recorder;

-- The record: exchanges, what was said in them, the keys that seal it, administrative acts.
--
-- exchange, body and admin_act are append-only for every role of the server: nothing here is updated or deleted, later facts
-- are linked rows. Row-level security is forced on each table; a session that names no tenant sees and writes nothing:
-- nullif(…, '') is null then, and no comparison with null is true. The sub-select is evaluated once a statement.

create table exchange (
  tenant          text not null check (tenant <> ''),
  arrived_at      timestamptz not null,          -- arrived_unix_ns, cut to microseconds: the partition key
  id              uuid not null,                 -- UUIDv7
  arrived_unix_ns bigint not null,
  environment     text not null,
  region          text not null,
  kind            text not null,
  team            text not null,
  role            text not null,
  subject         text not null,
  actor           text not null,
  end_user        text not null,
  issuer          text not null,
  key_id          text not null,
  session         text not null,
  use_case        text not null,
  alias           text not null,
  operation       text not null,
  dialect         text not null,
  mode            text not null,
  data_class      text not null,
  clearance       text not null,
  release_digest  text not null,
  manifest_digest text not null,
  rules           jsonb not null,
  strategy        text not null,
  candidates      jsonb not null,
  attempts        jsonb not null,
  steps           jsonb not null,
  receipts        jsonb not null,
  passage_ids     jsonb not null,
  usage           jsonb,
  charge_lines    jsonb not null,
  estimated_nano  bigint not null,
  held_nano       bigint not null,
  charged_nano    bigint not null,
  overrun_nano    bigint not null,
  lease_id        uuid,
  traceparent     text not null,
  outcome         text not null check (outcome in ('served', 'refused', 'cut', 'failed', 'abandoned')),
  refusal_code    text not null,
  refusal_detail  text not null,
  model           text not null,
  provider        text not null,
  source          text not null,
  stream          boolean not null,
  finish          jsonb not null,
  cut             jsonb not null,
  flags           jsonb not null,
  duration_ns     bigint not null,
  first_token_ns  bigint not null,
  request_bytes   bigint not null,
  reply_bytes     bigint not null,
  request_sha256  bytea check (length(request_sha256) = 32),  -- of the ciphertext in body; null = not kept
  reply_sha256    bytea check (length(reply_sha256) = 32),
  recorded_at     timestamptz not null default clock_timestamp(),
  primary key (tenant, arrived_at, id)
) partition by range (arrived_at);

create table body (
  tenant      text not null check (tenant <> ''),
  arrived_at  timestamptz not null,              -- the exchange's
  exchange_id uuid not null,
  part        text not null check (part in ('request', 'reply')),
  key_id      uuid not null,                     -- data_key
  nonce       bytea not null check (length(nonce) = 12),
  ciphertext  bytea not null,                    -- AES-256-GCM, bound to tenant, exchange, part and key
  truncated   boolean not null,
  primary key (tenant, arrived_at, exchange_id, part)
) partition by range (arrived_at);

alter table body alter column ciphertext set storage external;  -- ciphertext does not compress

create table data_key (
  tenant     text not null check (tenant <> ''),
  key_id     uuid not null,
  subject    text not null,
  generation int not null default 1,
  kek_id     text not null,                      -- which key-encryption key wraps it
  wrapped    bytea,                              -- null = erased: what it sealed can no longer be read
  created_at timestamptz not null default clock_timestamp(),
  erased_at  timestamptz,
  primary key (tenant, key_id),
  unique (tenant, subject, generation),
  check ((wrapped is null) = (erased_at is not null))
);

create table admin_act (
  tenant text not null,                          -- '' = the whole deployment: only operators see it
  at     timestamptz not null,
  id     uuid not null,
  at_unix_ns bigint not null,
  actor  text not null,
  act    text not null,
  target text not null,
  facts  jsonb not null,
  primary key (tenant, at, id)
);

create table exchange_default partition of exchange default;
create table body_default partition of body default;

-- Row-level security. Partitions get it too, without a policy: nobody reaches a row but through its parent.

do $$
declare
  name text;
begin
  foreach name in array array['exchange', 'exchange_default', 'body', 'body_default', 'data_key', 'admin_act'] loop
    execute format('alter table %I enable row level security, force row level security', name);
  end loop;
end $$;

grant select on exchange, body, data_key, admin_act to shipworthy_app, shipworthy_operator;
grant select on data_key to shipworthy_recorder;
grant insert on exchange, body, data_key, admin_act to shipworthy_recorder;
grant insert on admin_act to shipworthy_app, shipworthy_operator;

create policy exchange_app_select on exchange for select to shipworthy_app
  using (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy exchange_recorder_insert on exchange for insert to shipworthy_recorder
  with check (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy exchange_operator_select on exchange for select to shipworthy_operator using (true);

create policy body_app_select on body for select to shipworthy_app
  using (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy body_recorder_insert on body for insert to shipworthy_recorder
  with check (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy body_operator_select on body for select to shipworthy_operator using (true);

create policy data_key_app_select on data_key for select to shipworthy_app
  using (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy data_key_recorder_select on data_key for select to shipworthy_recorder
  using (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy data_key_recorder_insert on data_key for insert to shipworthy_recorder
  with check (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy data_key_operator_select on data_key for select to shipworthy_operator using (true);

create policy admin_act_app_select on admin_act for select to shipworthy_app
  using (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy admin_act_app_insert on admin_act for insert to shipworthy_app
  with check (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy admin_act_recorder_insert on admin_act for insert to shipworthy_recorder
  with check (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy admin_act_operator_select on admin_act for select to shipworthy_operator using (true);
create policy admin_act_operator_insert on admin_act for insert to shipworthy_operator with check (true);

-- Months ahead, so that no insert waits for a table. What arrives with a clock far off lands in the default partition; a
-- month whose rows are there already is left out and named in the answer ('skipped').
create function prepare_partitions(p_months_ahead int, p_from timestamptz default clock_timestamp())
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
  foreach v_parent in array array['exchange', 'body'] loop
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

revoke execute on function prepare_partitions from public;
grant execute on function prepare_partitions to shipworthy_operator;

select prepare_partitions(2);

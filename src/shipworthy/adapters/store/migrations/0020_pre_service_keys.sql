-- Service keys, and how every worker learns that one changed.

create table service_key (
  tenant      text not null check (tenant <> ''),
  id          text not null,                     -- public
  name        text not null,
  role        text not null,
  use_cases   text[] not null,
  created_at  timestamptz not null,
  expires_at  timestamptz,
  revoked_at  timestamptz,
  created_by  text not null,
  secret_hmac bytea not null check (length(secret_hmac) = 32),  -- HMAC-SHA256 under the pepper
  primary key (tenant, id)
);

create unique index service_key_id on service_key (id);

-- One row that every change of a key raises, in the same transaction: a worker whose entries are as old as this number knows
-- them to be current, whether or not a notification reached it.
create table key_change (
  one     boolean primary key default true check (one),
  version bigint not null
);

insert into key_change (version) values (1);

alter table service_key enable row level security, force row level security;
alter table key_change enable row level security, force row level security;

grant select, insert on service_key to shipworthy_app;
grant update (revoked_at) on service_key to shipworthy_app;
grant select on service_key to shipworthy_operator;
grant select on key_change to shipworthy_app, shipworthy_operator;

create policy service_key_app on service_key for all to shipworthy_app
  using (tenant = nullif((select current_setting('app.tenant', true)), ''))
  with check (tenant = nullif((select current_setting('app.tenant', true)), ''));
-- A key is looked up before its tenant is known: whoever names a whole id, which is random, sees that one row.
create policy service_key_app_named on service_key for select to shipworthy_app
  using (id = nullif((select current_setting('app.key_id', true)), ''));
create policy service_key_operator_select on service_key for select to shipworthy_operator using (true);

create policy key_change_select on key_change for select to shipworthy_app, shipworthy_operator using (true);
create policy key_change_owner on key_change for all to current_user using (true) with check (true);

create function note_key_change() returns trigger
language plpgsql security definer
set search_path = shipworthy, pg_temp
as $$
begin
  update key_change set version = version + 1;
  notify shipworthy_keys;
  return null;
end $$;

revoke execute on function note_key_change from public;

create trigger service_key_changed after insert or update on service_key
  for each statement execute function note_key_change();

-- The number is read before the row: a change between the two makes the row look older than it is, never newer.
create function named_service_key(p_id text)
returns table (
  version bigint, id text, tenant text, name text, role text, use_cases text[], created_at timestamptz,
  expires_at timestamptz, revoked_at timestamptz, created_by text, secret_hmac bytea
)
language plpgsql as $$
declare
  v_version bigint;
begin
  perform set_config('app.key_id', p_id, true);
  select c.version into strict v_version from key_change c;
  return query
    select v_version, k.id, k.tenant, k.name, k.role, k.use_cases, k.created_at, k.expires_at, k.revoked_at, k.created_by,
           k.secret_hmac
    from (select) one left join service_key k on k.id = p_id;
end $$;

revoke execute on function named_service_key from public;
grant execute on function named_service_key to shipworthy_app;

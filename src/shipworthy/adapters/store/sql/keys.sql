-- Service keys. Every change also raises key_change and notifies (trigger).

-- name: named — one key by its whole id, with the number of the last change; all nulls but the number when there is none
select version, id, tenant, name, role, use_cases, created_at, expires_at, revoked_at, created_by, secret_hmac
from named_service_key(%(id)s);

-- name: version — the number of the last change of any key
select version from key_change;

-- name: create — a new key
insert into service_key (tenant, id, name, role, use_cases, created_at, expires_at, created_by, secret_hmac)
values (%(tenant)s, %(id)s, %(name)s, %(role)s, %(use_cases)s, %(created_at)s, %(expires_at)s, %(created_by)s,
        %(secret_hmac)s);

-- name: list — the keys of the tenant, newest first
select id, tenant, name, role, use_cases, created_at, expires_at, revoked_at, created_by, secret_hmac
from service_key where tenant = %(tenant)s
order by created_at desc, id
limit %(limit)s;

-- name: revoke — takes a key back, once
update service_key set revoked_at = %(at)s
where tenant = %(tenant)s and id = %(id)s and revoked_at is null;

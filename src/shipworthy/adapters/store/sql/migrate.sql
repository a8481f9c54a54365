-- Run by the owner of the schema, with search_path shipworthy, public.

-- name: role_standing — which of the roles exist, whether they are too mighty, and whether the login may take them
select r.rolname, r.rolsuper or r.rolbypassrls as mighty,
       exists (select from pg_auth_members m join pg_roles l on l.oid = m.member
               where m.roleid = r.oid and l.rolname = %(login)s and m.set_option) as takeable
from pg_roles r
where r.rolname = any(%(roles)s);

-- name: create_register — the list of what was run on this database
create table if not exists shipworthy.migration (
  number     int primary key,
  name       text not null,
  phase      text not null check (phase in ('pre', 'post')),
  sha256     text not null,
  applied_at timestamptz not null default clock_timestamp()
);

-- name: registered — what was run, in order
select number, phase, name, sha256 from shipworthy.migration order by number;

-- name: register — one more file was run
insert into shipworthy.migration (number, name, phase, sha256) values (%(number)s, %(name)s, %(phase)s, %(sha256)s);

-- name: lock — one migration at a time on this database
select pg_advisory_lock(%(key)s);

-- name: unlock — the next one's turn
select pg_advisory_unlock(%(key)s);

-- name: mends — whether there is a way to move months out of default partitions
select true from pg_proc p where p.pronamespace = 'shipworthy'::regnamespace and p.proname = 'mend_partitions';

-- name: mend_partitions — one month, whatever its size; no row = none is left
select partition, state from mend_partitions(2, 9223372036854775807) where state = 'mended';

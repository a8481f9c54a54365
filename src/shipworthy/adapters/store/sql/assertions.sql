-- What must hold before the server starts. Run as the login of store.url, in no role. Each block but the first two answers with
-- what offends, one a row; no rows = it holds.

-- name: prepared — whether the schema and its register are there
select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
               where n.nspname = 'shipworthy' and c.relname = 'migration');

-- name: extension — the version of pgvector in this database
select extversion from pg_extension where extname = 'vector';

-- name: missing_roles — roles that do not exist or that the login may not take
select wanted from unnest(%(roles)s::text[]) wanted
where not exists (select from pg_roles r where r.rolname = wanted and pg_has_role(session_user, r.oid, 'SET'));

-- name: mighty_roles — roles whom row-level security does not bind, or who could change that
select r.rolname || ' (' || concat_ws(', ', case when r.rolsuper then 'SUPERUSER' end,
  case when r.rolbypassrls then 'BYPASSRLS' end, case when r.rolcreaterole then 'CREATEROLE' end,
  case when r.rolreplication then 'REPLICATION' end) || ')'
from pg_roles r
where (r.rolname = session_user or r.rolname = any(%(roles)s::text[]))
  and (r.rolsuper or r.rolbypassrls or r.rolcreaterole or r.rolreplication);

-- name: inherited_roles — roles whose rights the login has without taking them
select r.rolname from pg_roles r
where r.rolname = any(%(roles)s::text[]) and pg_has_role(session_user, r.oid, 'USAGE');

-- name: owned_tables — tables that the login or a role could alter, as their owner
select distinct c.relname || ' (owner ' || o.rolname || ')'
from pg_class c
join pg_roles o on o.oid = c.relowner
join pg_roles r on r.rolname = session_user or r.rolname = any(%(roles)s::text[])
where c.relnamespace = 'shipworthy'::regnamespace and c.relkind in ('r', 'p') and pg_has_role(r.oid, c.relowner, 'MEMBER');

-- name: unforced_tables — tables on which row-level security is not forced
select c.relname::text from pg_class c
where c.relnamespace = 'shipworthy'::regnamespace and c.relkind in ('r', 'p') and c.relname <> 'migration'
  and not (c.relrowsecurity and c.relforcerowsecurity);

-- name: uncovered_grants — what a role may do to a table by grant, and no policy says to which rows
select format('%%s on %%s by %%s', p.privilege, c.relname, r.rolname)
from pg_class c
join pg_roles r on r.rolname = any(%(roles)s::text[])
cross join (values ('SELECT', 'r'), ('INSERT', 'a'), ('UPDATE', 'w'), ('DELETE', 'd')) p(privilege, cmd)
where c.relnamespace = 'shipworthy'::regnamespace and c.relkind in ('r', 'p') and c.relname <> 'migration'
  and case when p.privilege = 'DELETE' then has_table_privilege(r.oid, c.oid, 'DELETE')
           else has_any_column_privilege(r.oid, c.oid, p.privilege) end
  and not exists (
    select from pg_policy y
    where y.polrelid = c.oid and y.polpermissive and y.polcmd in ('*', p.cmd)
      and (r.oid = any(y.polroles) or 0 = any(y.polroles)));

-- name: wide_policies — policies of app and recorder that do not hold a row's tenant against app.tenant
select format('%%s on %%s', y.polname, c.relname)
from pg_policy y
join pg_class c on c.oid = y.polrelid
cross join lateral (values (y.polqual), (y.polwithcheck)) e(expression)
where c.relnamespace = 'shipworthy'::regnamespace and y.polpermissive and e.expression is not null
  and (0 = any(y.polroles) or exists (
    select from pg_roles r where r.oid = any(y.polroles) and r.rolname = any(%(bound)s::text[])))
  and pg_get_expr(e.expression, y.polrelid)
    !~ '^\(tenant = NULLIF\(\( ?SELECT current_setting\(''app\.tenant''::text, true\) AS current_setting\), ''''::text\)\)$'
  and y.polname <> all(%(explicit)s::text[]);

-- name: editable_record — how the record could be changed by the login or a role
select distinct format('%%s on %%s by %%s', p.privilege, c.relname, r.rolname)
from pg_class c
join pg_roles r on r.rolname = session_user or r.rolname = any(%(roles)s::text[])
cross join unnest(array['UPDATE', 'DELETE', 'TRUNCATE']) p(privilege)
left join pg_inherits i on i.inhrelid = c.oid
left join pg_class parent on parent.oid = i.inhparent
where c.relnamespace = 'shipworthy'::regnamespace and c.relkind in ('r', 'p')
  and coalesce(parent.relname, c.relname) in ('exchange', 'body', 'admin_act', 'correction', 'cost_sum', 'cost_slot',
    'cost_unit', 'cost_late')
  and case when p.privilege = 'UPDATE' then has_any_column_privilege(r.oid, c.oid, 'UPDATE')
           else has_table_privilege(r.oid, c.oid, p.privilege) end;

-- name: open_partitions — partitions that can be reached other than through their parent
select distinct format('%%s by %%s', c.relname, r.rolname)
from pg_class c
join pg_roles r on r.rolname = session_user or r.rolname = any(%(roles)s::text[])
where c.relnamespace = 'shipworthy'::regnamespace and c.relispartition and c.relkind in ('r', 'p')
  and (has_any_column_privilege(r.oid, c.oid, 'SELECT') or has_any_column_privilege(r.oid, c.oid, 'INSERT'));

-- name: loose_functions — functions that run with their owner's rights and a search_path of the caller's
select p.proname::text from pg_proc p
where p.pronamespace = 'shipworthy'::regnamespace and p.prosecdef
  and not exists (select from unnest(p.proconfig) s where s like 'search_path=%%');

-- Administrative acts.

-- name: record — one act, final
insert into admin_act (tenant, at, id, at_unix_ns, actor, act, target, facts)
values (%(tenant)s, %(at)s, %(id)s, %(at_unix_ns)s, %(actor)s, %(act)s, %(target)s, %(facts)s);

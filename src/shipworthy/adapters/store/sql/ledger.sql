-- Run as shipworthy_app in autocommit: each of these statements is a transaction, and sets app.tenant for itself.

-- name: reserve — every level or none, in one round trip
select * from reserve(
  %(tenant)s, %(id)s, %(arrived_unix_ns)s, %(claims)s::jsonb, %(amount_nano)s::bigint, %(tokens)s::bigint, %(intent)b, %(worker)s,
  %(expires_s)s::float8, %(durable)s, %(again)s, %(now)s::timestamptz
);

-- name: raise_hold — more money for a hold, or none
select * from raise_hold(%(tenant)s, %(id)s, %(amount_nano)s::bigint, %(now)s::timestamptz);

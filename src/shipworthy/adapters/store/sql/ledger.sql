-- Run as shipworthy_app in autocommit: each of these statements is a transaction, and sets app.tenant for itself.

-- name: reserve_ahead — every level or none, in one round trip; and a lease, where one is wanted and there is room
select (r.verdict).*, r.granted, (r.given).* from reserve_ahead(
  %(tenant)s, %(id)s, %(arrived_unix_ns)s, %(claims)s::jsonb, %(amount_nano)s::bigint, %(tokens)s::bigint, %(intent)b, %(worker)s,
  %(expires_s)s::float8, %(durable)s, %(again)s, %(now)s::timestamptz, %(lease)s,
  case when %(wished)s then row(%(nano)s, %(requests)s, %(wish_tokens)s, %(places)s)::wish end, %(workers)s, %(ttl_s)s::float8,
  %(direct)s
) r;

-- name: top_up — more money for a lease, or none; what others have on lease is wanted back where only that stands in the way
select v.* from top_up(%(tenant)s, %(lease)s, %(more)s::bigint, %(now)s::timestamptz) v
where v.holds_only is not true or recall(%(tenant)s, v.key)::text is not null;

-- name: turn — what a worker reports of its leases of one tenant
select t.lease, t.gone, t.second, (t.standing).* from turn(%(tenant)s, %(turns)s::jsonb, %(ttl_s)s::float8, %(now)s::timestamptz) t;

-- name: raise_hold — more money for a hold, or none; as with top_up
select v.* from raise_hold(%(tenant)s, %(id)s, %(amount_nano)s::bigint, %(now)s::timestamptz) v
where v.holds_only is not true or recall(%(tenant)s, v.key)::text is not null;

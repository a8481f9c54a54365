-- Run as shipworthy_recorder. intend() sets app.tenant for its transaction.

-- name: intend — what leased exchanges leave behind if their worker dies
select intend(
  %(tenant)s, %(ids)s::uuid[], %(arrived)s::bigint[], %(claims)s::jsonb[], %(amounts)s::bigint[], %(tokens)s::bigint[],
  %(leases)s::uuid[], %(worker)s, %(expires_s)s::float8[], %(drafts)b::bytea[], %(now)s::timestamptz
);

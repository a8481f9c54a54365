-- Run as shipworthy_recorder. intend() sets app.tenant for its transaction. Arrays come in PostgreSQL's binary form.

-- name: intend — what leased exchanges leave behind if their worker dies
select intend(
  %(tenant)s, %(ids)b, %(arrived)b, %(claims)b, %(amounts)b, %(tokens)b, %(leases)b, %(worker)s, %(expires_s)b, %(drafts)b,
  %(now)s::timestamptz
);

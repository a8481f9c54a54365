-- Run as shipworthy_operator: the one reader across tenants. Settlement itself is the recorder's (recorder.sql).

-- name: orphans — holds that nobody will settle
select tenant, id, arrived_unix_ns, claims::text, amount_nano, tokens, worker, intent from hold
where expires_at < coalesce(%(now)s::timestamptz, clock_timestamp()) or worker = any(%(dead)s::text[])
order by tenant, id limit %(limit)s;

-- name: holders — whose holds there are
select distinct worker from hold order by worker limit %(limit)s;

-- name: expire — what is past its retention, a bounded number of rows and every whole month
select bodies, exchanges, acts, months from expire(%(rows_before)s, %(bodies_before)s, %(limit)s::int);

-- name: prepare_partitions — the record's tables for the months to come
select partition, state from prepare_partitions(%(months_ahead)s::int);

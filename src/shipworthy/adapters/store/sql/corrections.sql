-- Corrections: rows beside the rows of the record.

-- name: correct — one correction and the counters that it moves; the answer says whether it stands
select state, charged_nano, levels from correct(
  %(tenant)s, %(id)s, %(exchange_id)s, %(arrived_unix_ns)s, %(at)s, %(at_unix_ns)s, %(actor)s, %(reason)s, %(source)s,
  %(provider)s, %(nano)s, %(lines)s::jsonb, %(token)s, %(expected_nano)s::bigint
);

-- name: of — the corrections of some exchanges, in the order in which they were made
select id, tenant, exchange_id, arrived_unix_ns, at_unix_ns, actor, reason, source, provider, nano, lines, levels, token
from correction where exchange_id = any(%(exchange_ids)s::uuid[])
order by at_unix_ns, id
limit %(limit)s;

-- Reads of the record. As shipworthy_app row-level security gives one tenant, as shipworthy_operator it gives every one.
-- arrived_at is in each condition so that only the months that are meant are looked at.

-- name: page — exchanges before a place, newest first
select {columns} from exchange
where (%(tenant)s = '' or tenant = %(tenant)s)
  and (%(team)s = '' or team = %(team)s)
  and (%(use_case)s = '' or use_case = %(use_case)s)
  and (%(model)s = '' or model = %(model)s)
  and (%(principal)s = '' or subject = %(principal)s or actor = %(principal)s)
  and (%(outcome)s = '' or outcome = %(outcome)s)
  and (%(code)s = '' or refusal_code = %(code)s)
  and arrived_at >= %(since_at)s and arrived_unix_ns >= %(since_unix_ns)s
  and arrived_at <= %(until_at)s and arrived_unix_ns < %(until_unix_ns)s
  and (arrived_at, id) < (%(after_at)s, %(after_id)s)
order by arrived_at desc, id desc
limit %(limit)s;

-- name: get — one exchange; its id says the millisecond of its arrival
select {columns} from exchange
where id = %(id)s and arrived_at >= %(from)s and arrived_at < %(to)s
limit 1;

-- name: bodies — the sealed parts of one exchange with the data keys that open them
select b.tenant, b.part, b.key_id, b.nonce, b.ciphertext, b.truncated, k.kek_id, k.wrapped
from body b join data_key k on k.tenant = b.tenant and k.key_id = b.key_id
where b.exchange_id = %(id)s and b.arrived_at >= %(from)s and b.arrived_at < %(to)s;

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

-- name: cost — counts, tokens and money by one column, in one snapshot
select tenant, {name} as name, count(*),
       count(*) filter (where outcome = 'served'), count(*) filter (where outcome = 'refused'),
       count(*) filter (where outcome = 'cut'), count(*) filter (where outcome = 'failed'),
       count(*) filter (where outcome = 'abandoned'),
       sum((select sum((line ->> 'quantity')::bigint) from jsonb_array_elements(charge_lines) line
            where line ->> 'component' = any(%(input)s))),
       sum((select sum((line ->> 'quantity')::bigint) from jsonb_array_elements(charge_lines) line
            where line ->> 'component' = any(%(output)s))),
       sum(charged_nano), sum(overrun_nano)
from exchange
where (%(tenant)s = '' or tenant = %(tenant)s)
  and arrived_at >= %(since_at)s and arrived_unix_ns >= %(since_unix_ns)s
  and arrived_at <= %(until_at)s and arrived_unix_ns < %(until_unix_ns)s
group by 1, 2;

-- name: cost_by_model — the same by model: money and tokens of each charge line at the line's own model, counts and overrun at
-- the model that answered, and there too whatever a charge holds that its lines do not (nothing, unless a row is wrong)
with asked as (
  select tenant, model, outcome, charge_lines, charged_nano, overrun_nano from exchange
  where (%(tenant)s = '' or tenant = %(tenant)s)
    and arrived_at >= %(since_at)s and arrived_unix_ns >= %(since_unix_ns)s
    and arrived_at <= %(until_at)s and arrived_unix_ns < %(until_unix_ns)s
), parts as (
  select tenant, model as name, 1 as exchanges, outcome, 0::bigint as input, 0::bigint as output, overrun_nano,
         charged_nano - coalesce((select sum((line ->> 'amount_nano')::bigint)
                                  from jsonb_array_elements(charge_lines) line), 0) as charged_nano
  from asked
  union all
  select tenant, line ->> 'model', 0, '',
         case when line ->> 'component' = any(%(input)s) then (line ->> 'quantity')::bigint else 0 end,
         case when line ->> 'component' = any(%(output)s) then (line ->> 'quantity')::bigint else 0 end,
         0, (line ->> 'amount_nano')::bigint
  from asked, jsonb_array_elements(charge_lines) line
)
select tenant, name, sum(exchanges),
       count(*) filter (where outcome = 'served'), count(*) filter (where outcome = 'refused'),
       count(*) filter (where outcome = 'cut'), count(*) filter (where outcome = 'failed'),
       count(*) filter (where outcome = 'abandoned'),
       sum(input), sum(output), sum(charged_nano), sum(overrun_nano)
from parts
group by 1, 2;

-- name: patience — sums over long stretches may take longer than other statements
select set_config('statement_timeout', %(ms)s, true);

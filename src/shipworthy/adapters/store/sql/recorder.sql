-- Run as shipworthy_recorder. settle_rows() sets app.tenant for its transaction. Arrays come in PostgreSQL's binary form.

-- name: settle — rows, bodies, counters and leases of one tenant's part of a batch
select settle_rows(
  %(tenant)s, %(presume)s, %(now)s::timestamptz, %(paths)b,
  kept_rows(
    %(paths)b, %(path)b, %(alike)b, %(alike_of)b, %(weighed)b, %(weighed_of)b, %(ids)b, %(arrived)b, %(charged)b, %(subject)b,
    %(end_user)b, %(session)b, %(traceparent)b, %(refusal_detail)b, %(attempts)b, %(steps)b, %(passage_ids)b, %(usage)b,
    %(charge_lines)b, %(estimated_nano)b, %(held_nano)b, %(overrun_nano)b, %(row_lease)b, %(duration_ns)b, %(first_token_ns)b,
    %(request_bytes)b, %(reply_bytes)b, %(request_sha256)b, %(reply_sha256)b),
  %(ids)b, %(arrived)b, %(path)b, %(charged)b, %(tokens)b, %(counts)b, %(lease)b, %(taken)b, %(body_of)b, %(body_parts)b,
  %(body_keys)b, %(body_nonces)b, %(body_texts)b, %(body_cut)b
);

-- name: steady_plans — for this connection: none of its own for each batch, which would begin with copies of the batch; and none
-- that reads a whole table because it was empty when the plan was made
select set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false);

-- name: be_heard — while this connection lives, something that the worker sent may still arrive
select pg_advisory_lock_shared(worker_lock(%(worker)s));

-- name: set_tenant — for the transaction that is open
select set_config('app.tenant', %(tenant)s, true);

-- name: newest_data_key — with which to seal what a subject says
select key_id, kek_id, wrapped, generation from data_key
where tenant = %(tenant)s and subject = %(subject)s order by generation desc limit 1;

-- name: add_data_key — unless another worker was faster
insert into data_key (tenant, key_id, subject, generation, kek_id, wrapped)
values (%(tenant)s, %(key_id)s, %(subject)s, %(generation)s, %(kek_id)s, %(wrapped)b) on conflict do nothing;

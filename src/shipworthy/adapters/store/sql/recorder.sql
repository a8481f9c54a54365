-- Run as shipworthy_recorder. settle() sets app.tenant for its transaction.

-- name: settle — rows, bodies and counters of one tenant's part of a batch
select settle(
  %(tenant)s, %(entries)s::jsonb, %(presume)s, %(now)s::timestamptz, %(body_ids)s::uuid[], %(body_parts)s::text[],
  %(body_keys)s::uuid[], %(body_nonces)b::bytea[], %(body_texts)b::bytea[], %(body_cut)s::bool[]
);

-- name: set_tenant — for the transaction that is open
select set_config('app.tenant', %(tenant)s, true);

-- name: newest_data_key — with which to seal what a subject says
select key_id, kek_id, wrapped, generation from data_key
where tenant = %(tenant)s and subject = %(subject)s order by generation desc limit 1;

-- name: add_data_key — unless another worker was faster
insert into data_key (tenant, key_id, subject, generation, kek_id, wrapped)
values (%(tenant)s, %(key_id)s, %(subject)s, %(generation)s, %(kek_id)s, %(wrapped)b) on conflict do nothing;

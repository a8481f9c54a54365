-- Answers kept for repeats of a request.

-- name: begin — takes the place when it is free or its time is over; no row when it is taken
insert into repeat (tenant, place, digest, exchange_id, expires_at)
values (%(tenant)s, %(place)s, %(digest)s, %(exchange_id)s, clock_timestamp() + make_interval(secs => %(in_flight_s)s))
on conflict (tenant, place) do update
set digest = excluded.digest, exchange_id = excluded.exchange_id, expires_at = excluded.expires_at,
    status = null, content_type = null, nonce = null, ciphertext = null
where repeat.expires_at <= clock_timestamp()
returning true;

-- name: taken — what stands in the place
select digest, exchange_id, status, content_type, nonce, ciphertext
from repeat where tenant = %(tenant)s and place = %(place)s;

-- name: keep — the answer, if the place is still held by the exchange that began it
update repeat set status = %(status)s, content_type = %(content_type)s, nonce = %(nonce)s,
       ciphertext = %(ciphertext)s, expires_at = clock_timestamp() + make_interval(secs => %(kept_s)s)
where tenant = %(tenant)s and place = %(place)s and exchange_id = %(exchange_id)s;

-- name: forget — frees the place, if it is still held by the exchange that began it
delete from repeat where tenant = %(tenant)s and place = %(place)s and exchange_id = %(exchange_id)s;

-- name: sweep — some of what is over, oldest first
delete from repeat where tenant = %(tenant)s and place in (
  select place from repeat where tenant = %(tenant)s and expires_at <= clock_timestamp()
  order by expires_at limit %(limit)s for update skip locked);

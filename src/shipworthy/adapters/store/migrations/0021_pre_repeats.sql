-- Answers kept for repeats of a request (Idempotency-Key). Scope and key stand here only as a MAC. The answer is sealed under
-- a key that is derived from them: without the client's own Idempotency-Key nobody can open it.

create table repeat (
  tenant       text not null check (tenant <> ''),
  place        bytea not null check (length(place) = 32),   -- HMAC of scope and key
  digest       bytea not null check (length(digest) = 32),  -- of place and body, sha256
  exchange_id  uuid not null,                               -- who is in flight, or whose answer it is
  expires_at   timestamptz not null,                        -- until then in flight, or kept
  status       int,                                         -- null = in flight
  content_type text,
  nonce        bytea,
  ciphertext   bytea,
  primary key (tenant, place),
  check (status is null or (content_type is not null and nonce is not null and ciphertext is not null))
);

alter table repeat alter column ciphertext set storage external;
create index repeat_expiry on repeat (tenant, expires_at);

alter table repeat enable row level security, force row level security;

grant select, insert, update, delete on repeat to shipworthy_app;

create policy repeat_app on repeat for all to shipworthy_app
  using (tenant = nullif((select current_setting('app.tenant', true)), ''))
  with check (tenant = nullif((select current_setting('app.tenant', true)), ''));

-- name: sealed — whether anything was made under a key file
select exists (select from data_key) or exists (select from service_key)

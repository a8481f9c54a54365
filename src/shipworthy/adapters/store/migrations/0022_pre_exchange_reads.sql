-- Newest first across tenants: operators page through the record and sum its cost over a stretch of time. Within a tenant the
-- primary key serves.

create index exchange_newest on exchange (arrived_at, id);

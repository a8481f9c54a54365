-- Budget alerts, and the outbox of their webhook: one row is the fact that a threshold was passed and how its delivery goes.
--
-- Only the control plane's job writes here, as the operator: it looks at every tenant's budgets. A tenant sees its own.

create table alert (
  tenant        text not null check (tenant <> ''),
  id            uuid not null default gen_random_uuid(),  -- also the delivery's
  number        bigint generated always as identity,      -- the order in which they were raised
  key           text collate "C" not null,                -- the level's, as in counter
  period        text collate "C" not null,
  period_start  timestamptz not null,
  period_end    timestamptz not null,
  permille      int not null check (permille between 1 and 1000),
  cap_nano      bigint not null check (cap_nano > 0),
  charged_nano  bigint not null,
  raised_at     timestamptz not null,
  exhausted_at  timestamptz,                              -- at the pace of the last hour; null = not in this period, or unknown
  unsaid_until  timestamptz,                              -- somebody is saying it until then; null = it was said
  delivery      text not null check (delivery in ('none', 'pending', 'delivered', 'failed')),
  tries         int not null default 0,
  due_at        timestamptz not null,                     -- of the next try
  leased_until  timestamptz,                              -- until then one control plane is posting it
  last_status   int not null default 0,
  last_reason   text not null default '',
  ended_at      timestamptz,
  primary key (tenant, id),
  unique (tenant, key, period, period_start, cap_nano, permille),
  check ((ended_at is null) = (delivery in ('none', 'pending')))
);

create index alert_number on alert (number);
create index alert_unsaid on alert (unsaid_until) where unsaid_until is not null;
create index alert_due on alert (due_at) where delivery = 'pending';

-- The end users' counters of one period, page by page: the primary key would lead through every period that ever was. Nothing
-- indexed here is ever updated, so that charging a counter costs no more than before.
create index counter_end_user on counter (tenant, period, period_start, key) where key >= 'end_user=' and key < 'end_user>';

alter table alert enable row level security, force row level security;

grant select on alert to shipworthy_app;
grant select, insert, update, delete on alert to shipworthy_operator;

create policy alert_app_select on alert for select to shipworthy_app
  using (tenant = nullif((select current_setting('app.tenant', true)), ''));
create policy alert_operator on alert for all to shipworthy_operator using (true) with check (true);

-- Settlement and record, from arrays and with leases: they commit together, and anything may be said twice.
--
-- A charge is counted exactly when its row is inserted, a hold is released exactly when it is deleted, and a lease pays with the
-- row too. `settle` of migration 0004 stays for workers of the release before: it hands on to `settle_batch`, so that a sweeper
-- of theirs cannot release what a lease holds. What it was made of stays only for a call that is under way right now.

alter table exchange add column levels text[] not null default '{}';  -- key@period of each budget that it was charged to
alter table counter add column period_end timestamptz;                -- null = not charged since this column is here

create type released as (id uuid, claims jsonb, amount bigint, tokens bigint, paced_s bigint, used bigint, counts boolean);
create type payer as (id uuid, claims jsonb, taken bigint, suspended boolean);

-- Adds those of the rows that are not there yet; returns how many. The recorder may not read the record, so that it cannot be
-- told which.
create function insert_exchanges(p_rows text[]) returns int
language plpgsql as $$
declare
  v_added int;
begin
  insert into exchange (
    tenant, arrived_at, id, arrived_unix_ns, environment, region, kind, team, role, subject, actor, end_user, issuer, key_id,
    session, use_case, alias, operation, dialect, mode, data_class, clearance, release_digest, manifest_digest, rules,
    strategy, candidates, attempts, steps, receipts, passage_ids, usage, charge_lines, estimated_nano, held_nano,
    charged_nano, overrun_nano, lease_id, traceparent, outcome, refusal_code, refusal_detail, model, provider, source, stream,
    finish, cut, flags, duration_ns, first_token_ns, request_bytes, reply_bytes, request_sha256, reply_sha256, levels
  )
  select
    tenant, arrived_at(arrived_unix_ns), id, arrived_unix_ns, environment, region, kind, team, role, subject, actor, end_user,
    issuer, key_id, session, use_case, alias, operation, dialect, mode, data_class, clearance, release_digest,
    manifest_digest, rules, strategy, candidates, attempts, steps, receipts, passage_ids, usage, charge_lines, estimated_nano,
    held_nano, charged_nano, overrun_nano, lease_id, traceparent, outcome, refusal_code, refusal_detail, model, provider,
    source, stream, finish, cut, flags, duration_ns, first_token_ns, request_bytes, reply_bytes, request_sha256, reply_sha256,
    coalesce(levels, '{}')
  from unnest(p_rows) as t(said), jsonb_populate_record(null::exchange, t.said::jsonb)
  on conflict do nothing;
  get diagnostics v_added = row_count;
  return v_added;
end $$;

-- Which of the rows are new, of those that p_wanted names (null = all). Almost always all of them, or none when a whole batch is
-- said again: one statement. Only a batch of both, and a sweeper's, is taken apart.
create function inserted(p_rows text[], p_count int, p_wanted boolean[]) returns boolean[]
language plpgsql as $$
declare
  v_added int;
  v_new   boolean[] := '{}';
begin
  if p_wanted is null then
    begin
      v_added := insert_exchanges(p_rows);
      if v_added not in (0, p_count) then
        raise exception using errcode = 'SW001', message = 'some are there, some are not';
      end if;
      return array_fill(v_added > 0, array[p_count]);
    exception
      when sqlstate 'SW001' then
        null;
    end;
  end if;
  for i in 1 .. p_count loop
    v_new[i] := coalesce(p_wanted[i], true) and insert_exchanges(p_rows[i:i]) = 1;
  end loop;
  return v_new;
end $$;

-- What each lease pays: at most what it has, so that a counter's leased money is always the sum of its leases'. A lease that has
-- ended goes when it has paid its last. One that is gone pays nothing: its money was given back.
create function paid_by_leases(p_tenant text, p_leases uuid[], p_taken bigint[], p_new boolean[]) returns payer[]
language plpgsql as $$
declare
  v_payers payer[];
begin
  v_payers := array(
    select row(l.id, l.claims, least(e.taken, l.nano), l.suspended_at is not null)::payer
    from (
      select lease, sum(taken)::bigint as taken from unnest(p_leases, p_taken, p_new) as e(lease, taken, is_new)
      where is_new and lease is not null group by lease
    ) e
    join lease l on l.id = e.lease
    where l.tenant = p_tenant and l.id = any(p_leases));
  update lease l set nano = l.nano - y.taken from unnest(v_payers) y
  where l.tenant = p_tenant and l.id = any(p_leases) and l.id = y.id and y.taken > 0;
  delete from lease l where l.tenant = p_tenant and l.id = any(p_leases) and l.ended and l.nano = 0;
  return v_payers;
end $$;

-- Counters, in lock order: charges of new rows by the levels of their path, what released holds held, what leases paid.
create function count_charges(
  p_tenant text, p_paths jsonb, p_path int[], p_charged bigint[], p_new boolean[], p_released released[], p_payers payer[]
) returns void
language plpgsql as $$
declare
  r record;
begin
  for r in
    select c.key collate "C" as key, c.period collate "C" as period, c.period_start, max(c.period_end) as period_end,
           max(c.cap) as cap, sum(m.charged) as charged, sum(m.held) as held, sum(m.leased) as leased,
           sum(m.suspended) as suspended
    from (
      select p_paths -> e.path as claims, sum(e.charged) as charged, 0 as held, 0 as leased, 0 as suspended
      from unnest(p_path, p_charged, p_new) as e(path, charged, is_new)
      where e.is_new and e.charged > 0 and e.path >= 0 group by e.path
      union all
      select h.claims, 0, sum(h.amount), 0, 0 from unnest(p_released) h group by h.claims
      union all
      select y.claims, 0, 0, case when y.suspended then 0 else y.taken end, case when y.suspended then y.taken else 0 end
      from unnest(p_payers) y where y.taken > 0
    ) m, jsonb_populate_recordset(null::claim, m.claims) c
    where c.cap >= 0
    group by 1, 2, 3 order by 1, 2, 3
  loop
    update counter t
    set charged_nano = t.charged_nano + r.charged, held_nano = t.held_nano - r.held, leased_nano = t.leased_nano - r.leased,
        suspended_nano = t.suspended_nano - r.suspended, period_end = coalesce(r.period_end, t.period_end)
    where t.tenant = p_tenant and t.key = r.key and t.period = r.period and t.period_start = r.period_start;
    if not found then
      insert into counter (tenant, key, period, period_start, period_end, cap_nano, charged_nano)
      values (p_tenant, r.key, r.period, r.period_start, r.period_end, r.cap, r.charged)
      on conflict (tenant, key, period, period_start)
      do update set charged_nano = counter.charged_nano + excluded.charged_nano;
    end if;
  end loop;
end $$;

-- Direct holds leave their windows: requests in flight end; tokens go from estimated to real: less is given back in the slot
-- where the estimate counts, more counts now. Nothing below zero: a window that lost its slots to a clock's step is no reason to
-- fail. Leased requests are the business of `turn`.
create function correct_paces(p_tenant text, p_released released[], p_now timestamptz) returns void
language plpgsql as $$
declare
  r     record;
  p     pace;
  v_key text collate "C";
begin
  for r in
    select c.key collate "C" as key, h.paced_s, count(*)::int as ended,
           sum(greatest(0, h.used - h.tokens))::bigint as more, sum(greatest(0, h.tokens - h.used))::bigint as less,
           count(*) filter (where not h.counts)::int as refused
    from unnest(p_released) h, jsonb_populate_recordset(null::claim, h.claims) c
    where has_limits(c)
    group by 1, 2 order by 1, 2
  loop
    if v_key is distinct from r.key then
      if p.key is not null then
        perform keep_pace(p);
      end if;
      v_key := r.key;
      select * into p from pace t where t.tenant = p_tenant and t.key = r.key for update;
      if found then
        p := rolled(p, floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint);
      end if;
    end if;
    continue when p.key is null;
    p.in_flight := greatest(0, p.in_flight - r.ended);
    p := uncounted(counted(p, 0, r.more), r.paced_s, r.refused, r.less);
  end loop;
  if p.key is not null then
    perform keep_pace(p);
  end if;
end $$;

-- One tenant's part of a batch, in the order of ids, which is the order of locks. Arrays whose names do not begin with body have
-- one element an entry. p_path: which of p_paths (lists of type claim[]) an entry is charged to, -1 = none. p_lease and p_taken:
-- the lease that pays, and how much of the charge. p_counts false: a refused request does not count against a limit of requests.
-- p_body_of: which entry (from 1) a body belongs to. p_presume: these are the sweeper's entries, which stand only where their
-- hold still does, and whose lease the hold knows best.
-- Returns the ids of the rows that are new; null = all of them.
-- Holds go one by one: a plan for all of them that was made while the table was empty reads it from end to end when it is full.
create function settle_batch(
  p_tenant text, p_presume boolean, p_now timestamptz, p_paths jsonb, p_rows text[], p_ids uuid[], p_arrived bigint[],
  p_path int[], p_charged bigint[], p_tokens bigint[], p_counts boolean[], p_lease uuid[], p_taken bigint[],
  p_body_of int[], p_body_parts text[], p_body_keys uuid[], p_body_nonces bytea[], p_body_texts bytea[], p_body_cut boolean[]
) returns uuid[]
language plpgsql as $$
declare
  v_wanted   boolean[];
  v_released released[];
  v_payers   payer[];
  v_new      boolean[];
  r          record;
begin
  perform set_config('app.tenant', p_tenant, true);
  if p_presume then
    select array_agg(h.id is not null order by e.place), array_agg(coalesce(e.lease, h.lease_id) order by e.place),
           array_agg(case when e.lease is null and h.lease_id is not null then least(e.charged, h.amount_nano) else e.taken end
                     order by e.place)
    into v_wanted, p_lease, p_taken
    from unnest(p_ids, p_charged, p_lease, p_taken) with ordinality as e(id, charged, lease, taken, place)
    left join (select t.id, t.lease_id, t.amount_nano from hold t where t.tenant = p_tenant and t.id = any(p_ids)
               order by t.id for update skip locked) h on h.id = e.id;
  end if;
  for i in 1 .. cardinality(p_ids) loop
    continue when not v_wanted[i];
    delete from hold h where h.tenant = p_tenant and h.id = p_ids[i]
    returning h.claims, h.amount_nano, h.tokens, h.paced_s, h.lease_id into r;
    if found and r.lease_id is null then
      v_released := v_released
        || row(p_ids[i], r.claims, r.amount_nano, r.tokens, r.paced_s, p_tokens[i], p_counts[i])::released;
    end if;
  end loop;
  if array_remove(p_lease, null) <> '{}' then
    perform from lease l where l.tenant = p_tenant and l.id = any(p_lease) order by l.id for update;
  end if;
  v_new := inserted(p_rows, cardinality(p_ids), v_wanted);
  insert into body (tenant, arrived_at, exchange_id, part, key_id, nonce, ciphertext, truncated)
  select p_tenant, arrived_at(p_arrived[b.place]), p_ids[b.place], b.part, b.key_id, b.nonce, b.ciphertext, b.truncated
  from unnest(p_body_of, p_body_parts, p_body_keys, p_body_nonces, p_body_texts, p_body_cut)
    as b(place, part, key_id, nonce, ciphertext, truncated)
  where v_new[b.place];
  if array_remove(p_lease, null) <> '{}' then
    v_payers := paid_by_leases(p_tenant, p_lease, p_taken, v_new);
    if p_presume then  -- their worker, should it live after all, must not spend what it believes that is left
      update lease l set presumed = true from unnest(v_payers) y where l.tenant = p_tenant and l.id = y.id;
    end if;
  end if;
  perform count_charges(p_tenant, p_paths, p_path, p_charged, v_new, v_released, v_payers);
  if v_released is not null then
    perform correct_paces(p_tenant, v_released, p_now);
  end if;
  if not (false = any(v_new)) then
    return null;
  end if;
  return array(select e.id from unnest(p_ids, v_new) as e(id, is_new) where e.is_new);
end $$;

-- As migration 0004 promised it to the release before.
create or replace function settle(
  p_tenant text, p_entries jsonb, p_presume boolean, p_now timestamptz,
  p_body_ids uuid[], p_body_parts text[], p_body_keys uuid[], p_body_nonces bytea[], p_body_texts bytea[], p_body_cut boolean[]
) returns uuid[]
language plpgsql as $$
declare
  v_entries entry[];
  v_ids     uuid[];
  v_new     uuid[];
begin
  v_entries := array(select e from jsonb_populate_recordset(null::entry, p_entries) e order by (e.exchange ->> 'id')::uuid);
  v_ids := array(select (e.exchange ->> 'id')::uuid from unnest(v_entries) e);
  v_new := settle_batch(
    p_tenant, p_presume, p_now,
    (select coalesce(jsonb_agg(e.claims), '[]') from unnest(v_entries) e),
    array(select e.exchange::text from unnest(v_entries) e),
    v_ids,
    array(select (e.exchange ->> 'arrived_unix_ns')::bigint from unnest(v_entries) e),
    array(select place::int - 1 from unnest(v_ids) with ordinality as i(id, place)),
    array(select e.charged_nano from unnest(v_entries) e),
    array(select e.tokens from unnest(v_entries) e),
    array(select e.counts from unnest(v_entries) e),
    array_fill(null::uuid, array[cardinality(v_ids)]),
    array_fill(0::bigint, array[cardinality(v_ids)]),
    array(select array_position(v_ids, b) from unnest(p_body_ids) b),
    p_body_parts, p_body_keys, p_body_nonces, p_body_texts, p_body_cut);
  return coalesce(v_new, v_ids);
end $$;

revoke execute on function settle_batch, inserted(text[], int, boolean[]), insert_exchanges(text[]), paid_by_leases, count_charges, correct_paces from public;
grant execute on function settle_batch, inserted(text[], int, boolean[]), insert_exchanges(text[]), paid_by_leases, count_charges, correct_paces to shipworthy_recorder;

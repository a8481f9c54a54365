-- Settlement and record: they commit together.
--
-- Two rules make it safe to say anything twice: a charge is counted exactly when its row is inserted, and a hold is released
-- exactly when it is deleted.

create type entry as (
  exchange       jsonb,                         -- by the names of its columns
  claims         jsonb,                         -- of type claim[]
  charged_nano   bigint,
  tokens         bigint,
  counts         boolean                        -- false: a refused request does not count against a limit of requests
);

create function arrived_at(p_unix_ns bigint) returns timestamptz
language sql stable as $$ select timestamptz '1970-01-01 00:00:00+00' + (p_unix_ns / 1000) * interval '1 microsecond' $$;

-- Adds those of the rows that are not there yet; returns how many. The recorder may not read the record, so that it cannot be
-- told which.
create function insert_exchanges(p_rows jsonb) returns int
language plpgsql as $$
declare
  v_added int;
begin
  insert into exchange (
    tenant, arrived_at, id, arrived_unix_ns, environment, region, kind, team, role, subject, actor, end_user, issuer, key_id,
    session, use_case, alias, operation, dialect, mode, data_class, clearance, release_digest, manifest_digest, rules,
    strategy, candidates, attempts, steps, receipts, passage_ids, usage, charge_lines, estimated_nano, held_nano,
    charged_nano, overrun_nano, lease_id, traceparent, outcome, refusal_code, refusal_detail, model, provider, source, stream,
    finish, cut, flags, duration_ns, first_token_ns, request_bytes, reply_bytes, request_sha256, reply_sha256
  )
  select
    tenant, arrived_at(arrived_unix_ns), id, arrived_unix_ns, environment, region, kind, team, role, subject, actor, end_user,
    issuer, key_id, session, use_case, alias, operation, dialect, mode, data_class, clearance, release_digest,
    manifest_digest, rules, strategy, candidates, attempts, steps, receipts, passage_ids, usage, charge_lines, estimated_nano,
    held_nano, charged_nano, overrun_nano, lease_id, traceparent, outcome, refusal_code, refusal_detail, model, provider,
    source, stream, finish, cut, flags, duration_ns, first_token_ns, request_bytes, reply_bytes, request_sha256, reply_sha256
  from jsonb_populate_recordset(null::exchange, p_rows)
  on conflict do nothing;
  get diagnostics v_added = row_count;
  return v_added;
end $$;

-- Which of the entries' rows are new. Almost always all of them, or none when a whole batch is said again: one statement. Only
-- a batch of both is taken apart.
create function inserted(p_entries entry[]) returns boolean[]
language plpgsql as $$
declare
  v_count    int := cardinality(p_entries);
  v_added    int;
  v_inserted boolean[] := '{}';
begin
  begin
    v_added := insert_exchanges((select coalesce(jsonb_agg(e.exchange), '[]') from unnest(p_entries) e));
    if v_added not in (0, v_count) then
      raise exception using errcode = 'SW001', message = 'some are there, some are not';
    end if;
    return array_fill(v_added > 0, array[v_count]);
  exception
    when sqlstate 'SW001' then
      for i in 1 .. v_count loop
        v_inserted[i] := insert_exchanges(jsonb_build_array(p_entries[i].exchange)) = 1;
      end loop;
      return v_inserted;
  end;
end $$;

create function settle_counters(p_tenant text, p_entries entry[], p_inserted boolean[], p_holds hold[]) returns void
language plpgsql as $$
declare
  r record;
begin
  for r in
    select key collate "C" as key, period collate "C" as period, period_start, max(cap) as cap, sum(charged) as charged,
           sum(released) as released
    from (
      select c.key, c.period, c.period_start, c.cap, e.charged_nano as charged, 0 as released
      from unnest(p_entries, p_inserted) as e(exchange, claims, charged_nano, tokens, counts, inserted),
           jsonb_populate_recordset(null::claim, e.claims) c
      where e.inserted and e.charged_nano > 0 and c.cap >= 0
      union all
      select c.key, c.period, c.period_start, c.cap, 0, h.amount_nano
      from unnest(p_holds) h, jsonb_populate_recordset(null::claim, h.claims) c
      where c.cap >= 0
    ) moved
    group by 1, 2, 3 order by 1, 2, 3
  loop
    update counter t set charged_nano = t.charged_nano + r.charged, held_nano = t.held_nano - r.released
    where t.tenant = p_tenant and t.key = r.key and t.period = r.period and t.period_start = r.period_start;
    if not found then
      insert into counter (tenant, key, period, period_start, cap_nano, charged_nano)
      values (p_tenant, r.key, r.period, r.period_start, r.cap, r.charged)
      on conflict (tenant, key, period, period_start)
      do update set charged_nano = counter.charged_nano + excluded.charged_nano;
    end if;
  end loop;
end $$;

-- Requests in flight end; tokens go from estimated to real: less is given back in the slot where the estimate counts, more
-- counts now. Nothing below zero: a window that lost its slots to a clock's step is no reason to fail.
create function settle_paces(p_tenant text, p_entries entry[], p_holds hold[], p_now timestamptz) returns void
language plpgsql as $$
declare
  r      record;
  p      pace;
  v_slot int;
  v_back bigint;
begin
  for r in
    select c.key collate "C" as key, array_agg(h.paced_s) as paced_s, array_agg(h.tokens) as estimated,
           array_agg(coalesce(e.tokens, 0)) as used, array_agg(coalesce(e.counts, true)) as counts
    from unnest(p_holds) h
    cross join jsonb_populate_recordset(null::claim, h.claims) c
    left join unnest(p_entries) e on e.exchange ->> 'id' = h.id::text
    where has_limits(c)
    group by 1 order by 1
  loop
    select * into p from pace t where t.tenant = p_tenant and t.key = r.key for update;
    continue when not found;
    p := rolled(p, floor(extract(epoch from coalesce(p_now, clock_timestamp())))::bigint);
    for i in 1 .. cardinality(r.paced_s) loop
      p.in_flight := greatest(0, p.in_flight - 1);
      v_slot := case when r.paced_s[i] between p.head - 60 and p.head then r.paced_s[i] % 61 + 1 end;
      if r.used[i] > r.estimated[i] then
        p.tokens[p.head % 61 + 1] := p.tokens[p.head % 61 + 1] + r.used[i] - r.estimated[i];
        p.tokens_sum := p.tokens_sum + r.used[i] - r.estimated[i];
      elsif v_slot is not null then
        v_back := least(p.tokens[v_slot], r.estimated[i] - r.used[i]);
        p.tokens[v_slot] := p.tokens[v_slot] - v_back;
        p.tokens_sum := p.tokens_sum - v_back;
      end if;
      if not r.counts[i] and v_slot is not null and p.requests[v_slot] > 0 then
        p.requests[v_slot] := p.requests[v_slot] - 1;
        p.requests_sum := p.requests_sum - 1;
      end if;
    end loop;
    perform keep_pace(p);
  end loop;
end $$;

-- One tenant's part of a batch. p_presume: these are the sweeper's entries, which stand only where their hold still does.
-- Returns the ids of the rows that are new.
create function settle(
  p_tenant text, p_entries jsonb, p_presume boolean, p_now timestamptz,
  p_body_ids uuid[], p_body_parts text[], p_body_keys uuid[], p_body_nonces bytea[], p_body_texts bytea[], p_body_cut boolean[]
) returns uuid[]
language plpgsql as $$
declare
  v_entries  entry[];
  v_holds    hold[];
  v_inserted boolean[];
  v_ids      uuid[];
begin
  perform set_config('app.tenant', p_tenant, true);
  v_entries := array(
    select e from jsonb_populate_recordset(null::entry, p_entries) e
    order by (e.exchange ->> 'arrived_unix_ns')::bigint, (e.exchange ->> 'id')::uuid);
  v_ids := array(select (e.exchange ->> 'id')::uuid from unnest(v_entries) e);
  if p_presume then
    v_holds := array(select h from hold h where h.tenant = p_tenant and h.id = any(v_ids) order by h.id
                     for update skip locked);
    v_ids := array(select h.id from unnest(v_holds) h);
    v_entries := array(select e from unnest(v_entries) e where (e.exchange ->> 'id')::uuid = any(v_ids));
  else
    v_holds := array(select h from hold h where h.tenant = p_tenant and h.id = any(v_ids) order by h.id for update);
  end if;
  delete from hold h where h.tenant = p_tenant and h.id in (select d.id from unnest(v_holds) d);
  v_inserted := inserted(v_entries);
  insert into body (tenant, arrived_at, exchange_id, part, key_id, nonce, ciphertext, truncated)
  select p_tenant, arrived_at((e.exchange ->> 'arrived_unix_ns')::bigint), b.id, b.part, b.key_id, b.nonce, b.ciphertext, b.truncated
  from unnest(v_entries, v_inserted) as e(exchange, claims, charged_nano, tokens, counts, inserted)
  join unnest(p_body_ids, p_body_parts, p_body_keys, p_body_nonces, p_body_texts, p_body_cut)
    as b(id, part, key_id, nonce, ciphertext, truncated) on b.id = (e.exchange ->> 'id')::uuid
  where e.inserted;
  perform settle_counters(p_tenant, v_entries, v_inserted, v_holds);
  perform settle_paces(p_tenant, v_entries, v_holds, p_now);
  return array(
    select (e.exchange ->> 'id')::uuid
    from unnest(v_entries, v_inserted) as e(exchange, claims, charged_nano, tokens, counts, inserted) where e.inserted);
end $$;

revoke execute on function settle, inserted, insert_exchanges, settle_counters, settle_paces from public;
grant execute on function settle, inserted, insert_exchanges, settle_counters, settle_paces to shipworthy_recorder;

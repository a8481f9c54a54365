-- The record, by columns: what rows of a batch have in common is said, read and taken apart once, and not with each of them.
--
-- Taking a row's JSON apart was most of what an exchange cost. Now nothing but how rows arrive differs between the ways to settle:
-- `settle_rows` of what `kept_rows` makes for workers of this release; `settle_batch` of 0029, and by it `settle` of 0004, for those
-- before. `inserted` and `insert_exchanges` stay only for a call that is under way right now.

-- A row as it is to be kept. A type of its own, so that a later column of `exchange` with a default changes nothing here.
create type kept as (
  tenant text, id uuid, arrived_unix_ns bigint, environment text, region text, kind text, team text, role text, subject text,
  actor text, end_user text, issuer text, key_id text, session text, use_case text, alias text, operation text, dialect text,
  mode text, data_class text, clearance text, release_digest text, manifest_digest text, rules jsonb, strategy text,
  candidates jsonb, attempts jsonb, steps jsonb, receipts jsonb, passage_ids jsonb, usage jsonb, charge_lines jsonb,
  estimated_nano bigint, held_nano bigint, charged_nano bigint, overrun_nano bigint, lease_id uuid, traceparent text,
  outcome text, refusal_code text, refusal_detail text, model text, provider text, source text, stream boolean, finish jsonb,
  cut jsonb, flags jsonb, duration_ns bigint, first_token_ns bigint, request_bytes bigint, reply_bytes bigint,
  request_sha256 bytea, reply_sha256 bytea, levels text[]
);

-- Adds those of the rows that are not there yet; returns how many. The recorder may not read the record, so that it cannot be
-- told which.
create function add_exchanges(p_rows kept[]) returns int
language plpgsql as $$
declare
  v_added int;
begin
  insert into exchange (
    arrived_at, tenant, id, arrived_unix_ns, environment, region, kind, team, role, subject, actor, end_user, issuer, key_id,
    session, use_case, alias, operation, dialect, mode, data_class, clearance, release_digest, manifest_digest, rules,
    strategy, candidates, attempts, steps, receipts, passage_ids, usage, charge_lines, estimated_nano, held_nano,
    charged_nano, overrun_nano, lease_id, traceparent, outcome, refusal_code, refusal_detail, model, provider, source, stream,
    finish, cut, flags, duration_ns, first_token_ns, request_bytes, reply_bytes, request_sha256, reply_sha256, levels
  )
  select arrived_at(r.arrived_unix_ns), r.* from unnest(p_rows) r  -- in the order of the type
  on conflict do nothing;
  get diagnostics v_added = row_count;
  return v_added;
end $$;

-- Which of the rows are new, of those that p_wanted names (null = all). Almost always all of them, or none when a whole batch is
-- said again: one statement. Only a batch of both, and a sweeper's, is taken apart.
create function added(p_rows kept[], p_wanted boolean[]) returns boolean[]
language plpgsql as $$
declare
  v_count int := cardinality(p_rows);
  v_added int;
  v_new   boolean[] := '{}';
begin
  if p_wanted is null then
    begin
      v_added := add_exchanges(p_rows);
      if v_added not in (0, v_count) then
        raise exception using errcode = 'SW001', message = 'some are there, some are not';
      end if;
      return array_fill(v_added > 0, array[v_count]);
    exception
      when sqlstate 'SW001' then
        null;
    end;
  end if;
  for i in 1 .. v_count loop
    v_new[i] := coalesce(p_wanted[i], true) and add_exchanges(p_rows[i:i]) = 1;
  end loop;
  return v_new;
end $$;

-- Takes away the holds of those that p_wanted names (null = all); returns the direct ones: what leases hold is theirs.
-- One statement, and two promises that its settings keep, whenever its plan was made: it never reads the table from end to end,
-- and it locks in the order of ids, which is the index's. The join is of what is in memory: never each with each.
create function release_holds(
  p_tenant text, p_ids uuid[], p_wanted boolean[], p_tokens bigint[], p_counts boolean[]
) returns released[]
language plpgsql
set enable_seqscan = off
set enable_bitmapscan = off
set enable_nestloop = off
as $$
declare
  v_ids      uuid[] := p_ids;
  v_released released[];
begin
  if p_wanted is not null then
    v_ids := array(select e.id from unnest(p_ids, p_wanted) as e(id, wanted) where e.wanted);
  end if;
  with gone as (
    delete from hold h where h.tenant = p_tenant and h.id = any(v_ids)
    returning h.id, h.claims, h.amount_nano, h.tokens, h.paced_s, h.lease_id
  )
  select array_agg(row(g.id, g.claims, g.amount_nano, g.tokens, g.paced_s, e.tokens, e.counts)::released)
  into v_released
  from gone g join unnest(p_ids, p_tokens, p_counts) as e(id, tokens, counts) on e.id = g.id
  where g.lease_id is null;
  return v_released;
end $$;

-- One tenant's part of a batch, in the order of ids, which is the order of locks; p_rows in the same. The other parameters are
-- as 0029 says at `settle_batch`. Returns the ids of the rows that are new; null = all of them.
create function settle_rows(
  p_tenant text, p_presume boolean, p_now timestamptz, p_paths jsonb, p_rows kept[], p_ids uuid[], p_arrived bigint[],
  p_path int[], p_charged bigint[], p_tokens bigint[], p_counts boolean[], p_lease uuid[], p_taken bigint[],
  p_body_of int[], p_body_parts text[], p_body_keys uuid[], p_body_nonces bytea[], p_body_texts bytea[], p_body_cut boolean[]
) returns uuid[]
language plpgsql as $$
declare
  v_wanted   boolean[];
  v_released released[];
  v_payers   payer[];
  v_new      boolean[];
begin
  perform set_config('app.tenant', p_tenant, true);
  if cardinality(p_rows) <> cardinality(p_ids) then
    raise exception '% rows of % ids', cardinality(p_rows), cardinality(p_ids);
  end if;
  if p_presume then
    select array_agg(h.id is not null order by e.place), array_agg(coalesce(e.lease, h.lease_id) order by e.place),
           array_agg(case when e.lease is null and h.lease_id is not null then least(e.charged, h.amount_nano) else e.taken end
                     order by e.place)
    into v_wanted, p_lease, p_taken
    from unnest(p_ids, p_charged, p_lease, p_taken) with ordinality as e(id, charged, lease, taken, place)
    left join (select t.id, t.lease_id, t.amount_nano from hold t where t.tenant = p_tenant and t.id = any(p_ids)
               order by t.id for update skip locked) h on h.id = e.id;
  end if;
  v_released := release_holds(p_tenant, p_ids, v_wanted, p_tokens, p_counts);
  if array_remove(p_lease, null) <> '{}' then
    perform from lease l where l.tenant = p_tenant and l.id = any(p_lease) order by l.id for update;
  end if;
  v_new := added(p_rows, v_wanted);
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

-- As 0029 promised it to the release before: each row JSON of its own.
create or replace function settle_batch(
  p_tenant text, p_presume boolean, p_now timestamptz, p_paths jsonb, p_rows text[], p_ids uuid[], p_arrived bigint[],
  p_path int[], p_charged bigint[], p_tokens bigint[], p_counts boolean[], p_lease uuid[], p_taken bigint[],
  p_body_of int[], p_body_parts text[], p_body_keys uuid[], p_body_nonces bytea[], p_body_texts bytea[], p_body_cut boolean[]
) returns uuid[]
language plpgsql as $$
begin
  return settle_rows(
    p_tenant, p_presume, p_now, p_paths,
    array(select jsonb_populate_record(null::kept, '{"levels": []}' || t.said::jsonb)
          from unnest(p_rows) with ordinality as t(said, place) order by t.place),
    p_ids, p_arrived, p_path, p_charged, p_tokens, p_counts, p_lease, p_taken,
    p_body_of, p_body_parts, p_body_keys, p_body_nonces, p_body_texts, p_body_cut);
end $$;

-- What `settle_rows` takes, of columns: each an array with one element an entry, and documents are JSON. p_alike: objects, each with
-- all that some rows have in common, by the names of its columns; p_alike_of says which of them (from 1) is an entry's. So too
-- p_weighed, with candidates and receipts. The column `levels` follows from p_paths. The joins are of what is in memory: never
-- each with each.
create function kept_rows(
  p_paths jsonb, p_path int[], p_alike text[], p_alike_of int[], p_weighed text[], p_weighed_of int[], p_ids uuid[],
  p_arrived bigint[], p_charged bigint[], p_subject text[], p_end_user text[], p_session text[], p_traceparent text[],
  p_refusal_detail text[], p_attempts text[], p_steps text[], p_passage_ids text[], p_usage text[], p_charge_lines text[],
  p_estimated bigint[], p_held bigint[], p_overrun bigint[], p_lease uuid[], p_duration_ns bigint[],
  p_first_token_ns bigint[], p_request_bytes bigint[], p_reply_bytes bigint[], p_request_sha256 bytea[], p_reply_sha256 bytea[]
) returns kept[]
language plpgsql
set enable_nestloop = off
as $$
begin
  return array(
    with alike as materialized (
      select t.place, k.* from unnest(p_alike) with ordinality t(said, place), jsonb_populate_record(null::kept, t.said::jsonb) k
    ), weighed as materialized (
      select t.place, k.* from unnest(p_weighed) with ordinality t(said, place),
           jsonb_to_record(t.said::jsonb) k(candidates jsonb, receipts jsonb)
    ), budgeted as materialized (
      select p.place, array_agg(c.key || '@' || c.period order by c.place) filter (where c.cap >= 0) as levels
      from jsonb_array_elements(p_paths) with ordinality p(claims, place),
           jsonb_populate_recordset(null::claim, p.claims)
             with ordinality c(key, cap, period, begins, ends, requests, tokens, concurrent, place)
      group by p.place
    )
    select row(
      a.tenant, r.id, r.arrived, a.environment, a.region, a.kind, a.team, a.role, r.subject, a.actor, r.end_user, a.issuer,
      a.key_id, r.session, a.use_case, a.alias, a.operation, a.dialect, a.mode, a.data_class, a.clearance, a.release_digest,
      a.manifest_digest, a.rules, a.strategy, w.candidates, r.attempts::jsonb, r.steps::jsonb, w.receipts,
      r.passage_ids::jsonb, nullif(r.usage, 'null')::jsonb, r.charge_lines::jsonb, r.estimated, r.held, r.charged, r.overrun,
      r.lease, r.traceparent, a.outcome, a.refusal_code, r.refusal_detail, a.model, a.provider, a.source, a.stream,
      a.finish, a.cut, a.flags, r.duration_ns, r.first_token_ns, r.request_bytes, r.reply_bytes, r.request_sha256,
      r.reply_sha256, coalesce(l.levels, '{}')
    )::kept
    from (
      select
        unnest(p_alike_of) as alike_of, unnest(p_weighed_of) as weighed_of, unnest(p_path) as path, unnest(p_ids) as id,
        unnest(p_arrived) as arrived, unnest(p_charged) as charged, unnest(p_subject) as subject,
        unnest(p_end_user) as end_user, unnest(p_session) as session, unnest(p_traceparent) as traceparent,
        unnest(p_refusal_detail) as refusal_detail, unnest(p_attempts) as attempts, unnest(p_steps) as steps,
        unnest(p_passage_ids) as passage_ids, unnest(p_usage) as usage, unnest(p_charge_lines) as charge_lines,
        unnest(p_estimated) as estimated, unnest(p_held) as held, unnest(p_overrun) as overrun, unnest(p_lease) as lease,
        unnest(p_duration_ns) as duration_ns, unnest(p_first_token_ns) as first_token_ns,
        unnest(p_request_bytes) as request_bytes, unnest(p_reply_bytes) as reply_bytes,
        unnest(p_request_sha256) as request_sha256, unnest(p_reply_sha256) as reply_sha256,
        generate_subscripts(p_ids, 1) as place
    ) r
    join alike a on a.place = r.alike_of
    join weighed w on w.place = r.weighed_of
    left join budgeted l on l.place = r.path + 1
    order by r.place);
end $$;

revoke execute on function kept_rows, settle_rows, release_holds, added, add_exchanges from public;
grant execute on function kept_rows, settle_rows, release_holds, added, add_exchanges to shipworthy_recorder;

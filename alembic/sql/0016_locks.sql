-- The hot path, cheaper: what it plans for is set once for a lock session, a grant of the usual kind
-- stands in one index less, and what a batch does not have is not looked for.

create or replace function lock_is_granted(p_kind text, p_id text, p_mode text) returns boolean
language sql volatile as $$
-- Any conflicting grant counts, whatever the state of its member: live, paused, ended or none.
  select exists (select from lock_grant g
                  where g.kind = p_kind and g.id = p_id and g.mode = 'exclusive')
      or p_mode = 'exclusive' and exists (
           select from lock_grant g where g.kind = p_kind and g.id = p_id and g.mode = 'shared')
$$;

create or replace function lock_in_the_way(p_kind text, p_id text, p_mode text, p_ticket bigint)
returns jsonb language sql volatile as $$
-- Who stands in the way of a request, for people: grants first, then those who wait already.
  select jsonb_agg(to_jsonb(w)) from (
    select 'grant' as what, g.kind, g.id, g.mode, g.token, g.member_id, m.node, g.command_id,
           g.user_name, g.reason,
           round(extract(epoch from clock_timestamp() - g.granted_at), 3) as age_s
      from (select * from lock_grant
             where kind = p_kind and id = p_id and mode = 'exclusive'
            union all
            select * from lock_grant
             where kind = p_kind and id = p_id and mode = 'shared' and p_mode = 'exclusive') g
      left join member m using (member_id)
    union all
    select 'ticket', t.kind, t.id, t.mode, t.ticket, t.member_id, m.node, t.command_id,
           t.user_name, t.reason,
           round(extract(epoch from clock_timestamp() - t.waiting_since), 3)
      from lock_ticket t left join member m using (member_id)
     where t.kind = p_kind and t.id = p_id and (t.mode = 'exclusive' or p_mode = 'exclusive')
       and t.ticket < coalesce(p_ticket, 9223372036854775807)
    limit 20) w
$$;

create or replace function lock_release(p_member uuid, p_kinds text[], p_ids text[], p_tokens bigint[])
returns uuid[] language plpgsql as $$
-- Delete grants by their tokens; return whom to ring. The heads are looked up after the unlock: a
-- waiter that they miss asks once more after its ticket, and then finds the advisory lock free.
declare
  v_given bigint;
begin
  with gone as (
    delete from lock_grant
     where token = any (p_tokens)
       and (member_id = p_member) is true  -- not through its index: a member has thousands
    returning advisory, mode, advisory_held)
  select count(case g.mode when 'shared' then pg_advisory_unlock_shared(g.advisory)
                           else pg_advisory_unlock(g.advisory) end)
    into v_given from gone g where g.advisory_held;
  if not exists (select from lock_ticket) then  -- nobody waits for anything: most often
    return '{}';
  end if;
  return lock_heads(p_kinds, p_ids);
end $$;

create or replace function lock_acquire(
  p_member uuid, p_epoch bigint,
  p_tickets bigint[], p_tries boolean[], p_waits boolean[], p_commands uuid[], p_users text[],
  p_reasons text[],
  p_requests integer[], p_kinds text[], p_ids text[], p_modes text[], p_advisories bigint[]
) returns jsonb language plpgsql as $$
-- Requests (first row of arrays) and their keys (second row, p_requests says whose): each request
-- gets all of its keys or none. Tasks of one member never ask for conflicting keys in one batch.
declare
  v_got boolean[];
  v_refused integer[];
  v_tokens bigint[];
  v_answers jsonb := '[]';
  v_heads uuid[] := '{}';
begin
  select array_agg(p_tries[k.request] and case k.mode
                     when 'shared' then pg_try_advisory_lock_shared(k.advisory)
                     else pg_try_advisory_lock(k.advisory) end)
    into v_got from unnest(p_requests, p_modes, p_advisories) as k(request, mode, advisory);
  -- A statement of its own, begun after the try: one statement sees one snapshot, and a grant that
  -- was committed in between would be overlooked.
  select array_agg(distinct k.request) into v_refused
    from unnest(p_requests, p_kinds, p_ids, p_modes, v_got) as k(request, kind, id, mode, got)
   where not k.got
      or exists (select from lock_grant g  -- each by an index of its own
                  where g.kind = k.kind and g.id = k.id and g.mode = 'exclusive')
      or k.mode = 'exclusive' and exists (
           select from lock_grant g where g.kind = k.kind and g.id = k.id and g.mode = 'shared')
      or exists (select from lock_ticket t where t.kind = k.kind and t.id = k.id
                    and t.ticket < coalesce(p_tickets[k.request], 9223372036854775807)
                    and (t.mode = 'exclusive' or k.mode = 'exclusive'));
  select array_agg(case when k.request = any (v_refused) then null
                        else (p_epoch << 40) | nextval('fencing_token_seq') end)
    into v_tokens from unnest(p_requests) as k(request);
  insert into lock_grant (kind, id, mode, token, advisory, member_id, command_id, user_name, reason)
  select k.kind, k.id, k.mode, k.token, k.advisory, p_member,
         p_commands[k.request], p_users[k.request], p_reasons[k.request]
    from unnest(p_requests, p_kinds, p_ids, p_modes, p_advisories, v_tokens)
           as k(request, kind, id, mode, advisory, token)
   where k.token is not null;
  if array_remove(p_tickets, null) <> '{}' then
    delete from lock_ticket where member_id = p_member and ticket = any (array(
      select r.ticket from unnest(p_tickets) with ordinality as r(ticket, request)
       where v_refused is null or r.request <> all (v_refused)));
  end if;
  if v_refused is not null then
    v_answers := lock_refuse(p_member, v_refused, v_got, p_tickets, p_tries, p_waits, p_commands,
                             p_users, p_reasons, p_requests, p_kinds, p_ids, p_modes, p_advisories);
    -- An undo rings like a release: who tried meanwhile failed for our sake. That is never ourselves,
    -- nor a shared one for a shared try; rung all the same, they would ring without end.
    select array_agg(distinct t.member_id) into v_heads
      from unnest(p_requests, p_kinds, p_ids, p_modes, v_got) as k(request, kind, id, mode, got)
      join lock_ticket t on t.kind = k.kind and t.id = k.id and t.member_id <> p_member
       and (t.mode = 'exclusive' or k.mode = 'exclusive')
     where k.got and k.request = any (v_refused)
       and not exists (select from lock_ticket e
                        where e.kind = t.kind and e.id = t.id and e.ticket < t.ticket
                          and (e.mode = 'exclusive' or t.mode = 'exclusive'));
  end if;
  return jsonb_build_object('tokens', to_jsonb(v_tokens), 'refused', v_answers,
                            'ring', to_jsonb(coalesce(v_heads, '{}')));
end $$;

create or replace function cluster_batch(
  p_member uuid, p_session integer, p_sync boolean, p_observe boolean,
  p_release_kinds text[], p_release_ids text[], p_release_tokens bigint[],
  p_tickets bigint[], p_tries boolean[], p_waits boolean[], p_commands uuid[], p_users text[],
  p_reasons text[],
  p_requests integer[], p_kinds text[], p_ids text[], p_modes text[], p_advisories bigint[],
  p_ops jsonb, p_seen text
) returns jsonb language plpgsql set enable_seqscan = off as $$
-- The one statement of a lock session. A synchronous batch is a renewal; one of releases alone
-- commits without waiting: a release that is lost is repeated by the resume. Releases come first:
-- whoever asks in the same batch may ask for what they give back.
declare
  v_epoch bigint;
  v_heads uuid[];
  v_op jsonb;
  v_result jsonb;
  v_results jsonb := '[]';
  v_acquired jsonb;
  v_ring jsonb := '[]';
begin
  if p_sync then
    update member set renewal = renewal + 1, renewed_at = clock_timestamp(),
           expires_at = clock_timestamp() + ttl
     where member_id = p_member and session_number = p_session and state = 'live'
    returning epoch_id into v_epoch;
  else
    perform set_config('synchronous_commit', 'off', true);
    if cardinality(p_release_tokens) = 0 and p_ops = '[]' then  -- a mere look locks nothing
      select epoch_id into v_epoch from member
       where member_id = p_member and session_number = p_session and state = 'live';
    end if;
  end if;
  if v_epoch is null or current_setting('transaction_isolation') <> 'read committed' then
    v_epoch := member_session_check(p_member, p_session);  -- raises what is wrong
  end if;
  if cardinality(p_release_tokens) > 0 then
    v_heads := lock_release(p_member, p_release_kinds, p_release_ids, p_release_tokens);
    v_ring := to_jsonb(v_heads);
    if not p_sync then
      -- Nobody waits for this commit's flush, so ringing in it holds nobody up, and saves the way
      -- of the answer and of a ring of its own. A durable batch rings when it is answered.
      perform pg_notify(cluster_channel(), 'locks/' || m.id) from unnest(v_heads) as m(id)
        where m.id <> p_member;
      v_ring := case when p_member = any (v_heads) then jsonb_build_array(p_member) else '[]' end;
    end if;
  end if;
  if cardinality(p_tries) > 0 then
    v_acquired := lock_acquire(p_member, v_epoch, p_tickets, p_tries, p_waits, p_commands, p_users,
                               p_reasons, p_requests, p_kinds, p_ids, p_modes, p_advisories);
    v_ring := v_ring || (v_acquired->'ring');
  end if;
  if p_ops <> '[]' then
    for v_op in select value from jsonb_array_elements(p_ops) loop
      v_result := case v_op->>'op'
        when 'heads' then jsonb_build_object('ok', true, 'ring', to_jsonb(lock_heads(
          (select array_agg(k->>'kind') from jsonb_array_elements(v_op->'keys') k),
          (select array_agg(k->>'id') from jsonb_array_elements(v_op->'keys') k))))
        when 'withdraw' then lock_withdraw(p_member, (v_op->>'ticket')::bigint)
        when 'claim' then lock_claim(p_member, v_epoch, v_op)
        when 'unclaim' then lock_unclaim(p_member, v_op)
        when 'win' then leader_win(p_member, v_op)
        when 'resign' then leader_resign(p_member, v_op)
      end;
      v_results := v_results || v_result;
      v_ring := v_ring || coalesce(v_result->'ring', '[]');
    end loop;
  end if;
  if p_sync and p_observe and exists (
      select from lock_grant where member_id = p_member and not advisory_held) then
    perform lock_follow(p_member);
  end if;
  return jsonb_build_object('results', v_results, 'acquired', v_acquired, 'ring', v_ring,
                            'view', case when p_observe then cluster_view(p_seen) end,
                            'worked_s', extract(epoch from clock_timestamp() - statement_timestamp()));
end $$;

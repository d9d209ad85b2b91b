-- The lock session's statements on top of it: resume, batch, claims, ending, breaking, fence.

create function cluster_channel(p_member regclass default 'member') returns text
language sql stable as $$
-- Where the doorbells of a cluster ring: each of a database's clusters has a channel of its own, so
-- that none wakes the others. The engine's, in public, is named as ever.
  select case s.nspname when 'public' then 'engine_pg' else left('engine_pg.' || s.nspname, 63) end
    from pg_class c join pg_namespace s on s.oid = c.relnamespace where c.oid = p_member
$$;

create index lock_grant_following_idx on lock_grant (member_id) where not advisory_held;

create function lock_follow(p_member uuid) returns integer language plpgsql as $$
-- The advisory lock follows a grant that came without it: adopted, or resumed under a probe.
declare
  v_left integer;
begin
  -- Chosen first, tried then: a planner that tries while it scans would count locks for other grants.
  with chosen as materialized (
    select kind, id, token, mode, advisory from lock_grant
     where member_id = p_member and not advisory_held),
  tried as materialized (
    select kind, id, token, case mode when 'shared' then pg_try_advisory_lock_shared(advisory)
                                      else pg_try_advisory_lock(advisory) end as got
      from chosen)
  update lock_grant g set advisory_held = true from tried t
   where g.kind = t.kind and g.id = t.id and g.token = t.token and t.got;
  select count(*) into v_left from lock_grant where member_id = p_member and not advisory_held;
  return v_left;
end $$;

create function lock_unclaim(p_member uuid, p_op jsonb) returns jsonb language plpgsql as $$
-- The grants stand for an adopter, if there is something to adopt; the advisory locks go back.
declare
  v_command uuid := (p_op->>'command_id')::uuid;
  v_adoptable boolean := cluster_command_vacate(v_command, p_member);
  v_kinds text[];
  v_ids text[];
begin
  perform lock_advisory_release(array_agg(advisory), array_agg(mode)) from lock_grant
    where member_id = p_member and command_id = v_command and advisory_held;
  if v_adoptable then
    update lock_grant set member_id = null, advisory_held = false
     where member_id = p_member and command_id = v_command;
    return '{"ok": true}';
  end if;
  with gone as (delete from lock_grant where member_id = p_member and command_id = v_command
                returning kind, id)
  select array_agg(kind), array_agg(id) into v_kinds, v_ids from gone;
  return jsonb_build_object('ok', true, 'ring', to_jsonb(lock_heads(v_kinds, v_ids)));
end $$;

create function member_resume(
  p_member uuid, p_session integer, p_held jsonb, p_tickets bigint[], p_commands uuid[],
  p_leaderships jsonb
) returns jsonb language plpgsql as $$
-- Become lock session number p_session: end the predecessor's backend, take its advisory locks again
-- under the old tokens, and reconcile: what the member gave back, or was given without hearing of
-- it, is vacated (p_held, p_tickets, p_commands and p_leaderships list what it knows that it has).
-- Each try comes with a higher number: one that thaws late, with an old list, does nothing.
declare
  v_member member;
  v_epoch bigint := cluster_epoch_current();
begin
  select * into v_member from member where member_id = p_member for no key update;
  if not found or v_member.state <> 'live' then
    raise exception 'member % was ended: %', p_member, coalesce(v_member.end_reason, 'no such member')
      using errcode = 'EP002';
  end if;
  if v_member.session_number >= p_session then
    raise exception 'lock session % of member % was succeeded by session %',
      p_session, p_member, v_member.session_number using errcode = 'EP003';
  end if;
  perform pg_terminate_backend(a.pid, 1000) from pg_stat_activity a
    where a.pid = v_member.backend_pid and a.backend_start = v_member.backend_started_at
      and a.pid <> pg_backend_pid();
  perform cluster_commands_kept(p_member, p_commands);
  update lock_grant set member_id = null, advisory_held = false
   where member_id = p_member and command_id is not null and command_id <> all (p_commands);
  update leader l set member_id = null where l.member_id = p_member
     and not exists (select from jsonb_to_recordset(p_leaderships) as h(name text, term bigint)
                      where h.name = l.name and h.term = l.term);
  delete from lock_grant g where g.member_id = p_member
     and not exists (select from jsonb_to_recordset(p_held) as h(kind text, id text, token bigint)
                      where h.kind = g.kind and h.id = g.id and h.token = g.token);
  delete from lock_ticket where member_id = p_member and ticket <> all (p_tickets);
  -- Where somebody probes a key we fail: he finds our grant and undoes it. The right is the grant's.
  with tried as materialized (
    select kind, id, token, case mode when 'shared' then pg_try_advisory_lock_shared(advisory)
                                      else pg_try_advisory_lock(advisory) end as got
      from lock_grant where member_id = p_member)
  update lock_grant g set advisory_held = t.got from tried t
   where g.kind = t.kind and g.id = t.id and g.token = t.token and g.advisory_held <> t.got;
  update member m set session_number = p_session, epoch_id = v_epoch, renewal = m.renewal + 1,
         renewed_at = clock_timestamp(), expires_at = clock_timestamp() + m.ttl,
         backend_pid = a.pid, backend_started_at = a.backend_start
    from pg_stat_activity a where m.member_id = p_member and a.pid = pg_backend_pid();
  return jsonb_build_object(
    'epoch_id', v_epoch,
    'grants', (select coalesce(jsonb_agg(jsonb_build_object(
                        'kind', kind, 'id', id, 'token', token, 'broken_by', broken_by)), '[]')
                 from lock_grant where member_id = p_member));
end $$;

create function gate_shut(p_gate integer) returns void language plpgsql as $$
-- Take a member's gate, so that no fenced write of it is under way; whoever holds it longer than
-- 0.2 s is frozen and loses his connection. Tries are counted: the server's clock may jump.
begin
  for v_try in 1..200 loop
    if pg_try_advisory_xact_lock(7001, p_gate) then
      return;
    end if;
    if v_try > 20 then
      perform pg_terminate_backend(l.pid) from pg_locks l
        where l.locktype = 'advisory' and l.classid = 7001 and l.objsubid = 2 and l.granted
          and l.mode = 'ShareLock'  -- not another ender
          and l.objid = (p_gate::bigint & 4294967295)::oid and l.pid <> pg_backend_pid()
          and l.database = (select oid from pg_database where datname = current_database());
    end if;
    perform pg_sleep(0.01);
  end loop;
  raise exception 'gate % does not open', p_gate using errcode = '55P03';
end $$;

create or replace function member_end(
  p_member uuid, p_gate integer, p_renewal bigint, p_by uuid, p_reason text
) returns boolean language plpgsql as $$
-- End a member, once, behind its gate. p_renewal is the counter that the caller saw standing still
-- (null: the member ends itself).
declare
  v_member member;
begin
  select * into v_member from member where member_id = p_member;
  if not found or v_member.state <> 'live' or v_member.renewal <> coalesce(p_renewal, v_member.renewal) then
    return false;
  end if;
  -- First of all its backend: frozen in a batch, it would keep the row for ever.
  perform pg_terminate_backend(a.pid) from pg_stat_activity a
    where a.pid = v_member.backend_pid and a.backend_start = v_member.backend_started_at
      and a.pid <> pg_backend_pid();
  perform gate_shut(p_gate);
  -- The victim's row before our own, and neither for long: our own renewals need ours.
  perform set_config('lock_timeout', '300ms', true);
  update member set state = 'ended', ended_at = clock_timestamp(), ended_by = p_by, end_reason = p_reason
   where member_id = p_member and state = 'live' and renewal = coalesce(p_renewal, renewal)
  returning * into v_member;
  if not found then
    return false;
  end if;
  if p_by <> p_member then
    perform 1 from member where member_id = p_by and state = 'live' for share;
    if not found then
      raise exception 'member % was ended', p_by using errcode = 'EP002';
    end if;
  end if;
  perform set_config('lock_timeout', '3s', true);
  perform cluster_member_ended(p_member);
  delete from lock_ticket where member_id = p_member;
  delete from lock_grant where member_id = p_member and command_id is null;
  update lock_grant set member_id = null, advisory_held = false where member_id = p_member;
  update leader set member_id = null where member_id = p_member;
  return true;
end $$;

create function cluster_lock_broken(p_grant lock_grant, p_by text, p_reason text) returns void
language plpgsql as $$
-- Called in the transaction that breaks a lock; replaced by those who run commands and keep an audit.
begin
end $$;

create function cluster_command_keep(p_command uuid) returns void language plpgsql as $$
-- Called before a grant of the command is broken; replaced by those who run commands: they keep its
-- row for themselves until the transaction ends.
begin
end $$;

create function lock_break(
  p_kind text, p_id text, p_token bigint, p_gate integer, p_by text, p_reason text
) returns boolean language plpgsql as $$
-- Take the rights away that rest on a grant, behind its holder's gate, and end its command. The
-- grant itself stands until its holder, whose lock session is cut when this is committed, has
-- resumed, learnt of it, stopped and released. False: it was broken before, or is no more.
declare
  v_grant lock_grant;
begin
  if p_gate is not null then
    perform gate_shut(p_gate);
  end if;
  -- First the command, then its grants, as whoever claims it or gives it up: none waits for the other
  -- with what the other needs.
  perform cluster_command_keep(command_id) from lock_grant
    where kind = p_kind and id = p_id and token = p_token and command_id is not null;
  update lock_grant set broken_at = clock_timestamp(), broken_by = p_by
   where kind = p_kind and id = p_id and token = p_token and broken_at is null
  returning * into v_grant;
  if not found or (v_grant.member_id is null) <> (p_gate is null) then
    if found then
      raise exception 'the grant has just moved' using errcode = '55P03';
    end if;
    return false;
  end if;
  perform cluster_lock_broken(v_grant, p_by, p_reason);
  if v_grant.member_id is null then
    delete from lock_grant where command_id = v_grant.command_id and member_id is null;
  end if;
  return true;
end $$;

create function member_cut(p_member uuid) returns void language plpgsql as $$
-- End a member's lock session; it resumes under the next number.
begin
  perform pg_stat_clear_snapshot();  -- or a second look in a transaction sees the first one's sessions
  perform pg_terminate_backend(a.pid) from pg_stat_activity a join member m
    on a.pid = m.backend_pid and a.backend_start = m.backend_started_at
   where m.member_id = p_member;
end $$;

create function lock_break_finish(
  p_kind text, p_id text, p_token bigint, p_member uuid, p_gate integer
) returns boolean language plpgsql as $$
-- Delete a broken grant that its holder does not release; false: it is gone already.
begin
  perform member_cut(p_member);  -- first: frozen in a batch, it would keep the row for ever
  perform gate_shut(p_gate);
  -- While we have the row nobody resumes: a session that took the grant over before we delete it
  -- would keep an advisory lock that no grant tells of. One that has resumed meanwhile is cut again.
  perform 1 from member where member_id = p_member for no key update;
  perform member_cut(p_member);
  delete from lock_grant
   where kind = p_kind and id = p_id and token = p_token and broken_at is not null;
  return found;
end $$;

create function cluster_batch(
  p_member uuid, p_session integer, p_sync boolean, p_observe boolean,
  p_release_kinds text[], p_release_ids text[], p_release_tokens bigint[],
  p_tickets bigint[], p_tries boolean[], p_waits boolean[], p_commands uuid[], p_users text[],
  p_reasons text[],
  p_requests integer[], p_kinds text[], p_ids text[], p_modes text[], p_advisories bigint[],
  p_ops jsonb, p_seen text
) returns jsonb language plpgsql as $$
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
  if p_sync and p_observe and exists (
      select from lock_grant where member_id = p_member and not advisory_held) then
    perform lock_follow(p_member);
  end if;
  return jsonb_build_object('results', v_results, 'acquired', v_acquired, 'ring', v_ring,
                            'view', case when p_observe then cluster_view(p_seen) end,
                            'worked_s', extract(epoch from clock_timestamp() - statement_timestamp()));
end $$;

create or replace function fence_enter(
  p_member uuid, p_gate integer, p_grants jsonb,
  p_leader text, p_term bigint, p_leader_gate integer, p_command uuid, p_attempt integer
) returns void language plpgsql as $$
-- First statement of a fenced transaction: hold the gates, then look, in statements begun after.
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'a fence needs READ COMMITTED: a snapshot taken before the gate is blind'
      using errcode = 'EP006';
  end if;
  if pg_current_xact_id_if_assigned() is not null then
    raise exception 'a fence is the first statement of its transaction' using errcode = 'EP006';
  end if;
  perform set_config('lock_timeout', '3s', true);
  perform pg_advisory_xact_lock_shared(7001, p_gate);
  perform 1 from member where member_id = p_member and state = 'live';
  if not found then
    raise exception 'member % was ended', p_member using errcode = 'EP002';
  end if;
  if p_leader is not null then
    perform pg_advisory_xact_lock_shared(7002, p_leader_gate);
    perform 1 from leader where name = p_leader and member_id = p_member and term = p_term;
    if not found then
      raise exception 'term % of % is over', p_term, p_leader using errcode = 'EP005';
    end if;
  end if;
  if exists (select from jsonb_to_recordset(p_grants) as h(kind text, id text, token bigint)
              where not exists (select from lock_grant g where g.kind = h.kind and g.id = h.id
                                   and g.token = h.token and g.member_id = p_member
                                   and g.broken_at is null)) then
    raise exception 'a grant is no longer held under its token' using errcode = 'EP004';
  end if;
  if p_command is not null and not cluster_command_owned(p_command, p_member, p_attempt) then
    raise exception 'command % was taken over', p_command using errcode = 'EP004';
  end if;
end $$;

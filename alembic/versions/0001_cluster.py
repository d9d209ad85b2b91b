"""The coordination protocol: epochs, members, grants, leaders, and the functions that change them."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
create table cluster_epoch (
  epoch_id bigint primary key,
  system_identifier bigint not null,
  timeline bigint not null,
  postmaster_started_at timestamptz not null,
  marker uuid not null,
  recorded_at timestamptz not null default clock_timestamp(),
  constraint cluster_epoch_life_key unique (system_identifier, timeline, postmaster_started_at, marker)
);
comment on table cluster_epoch is
  'One row for each life of a writable server''s shared memory; advisory locks do not survive it.';

-- Emptied by a crash restart, which keeps the other three parts of an epoch's identity.
create unlogged table cluster_epoch_marker (
  only_row boolean primary key default true check (only_row),
  marker uuid not null
);

create table member (
  member_id uuid primary key,
  node text not null,
  epoch_id bigint not null references cluster_epoch,
  session_number integer not null default 1,
  renewal bigint not null default 0,
  state text not null default 'live' check (state in ('live', 'ended')),
  draining boolean not null default false,
  ttl interval not null,
  address text not null default '',
  version text not null default '',
  worker_id bigint,
  backend_pid integer not null,
  backend_started_at timestamptz not null,
  joined_at timestamptz not null default clock_timestamp(),
  renewed_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null,
  ended_at timestamptz,
  ended_by uuid,
  end_reason text
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
create index member_live_idx on member (member_id) where state = 'live';
comment on column member.expires_at is 'For people to read: no decision compares it with a clock.';

create sequence fencing_token_seq as bigint cache 1 no cycle;

create table lock_grant (
  kind text not null,
  id text not null,
  mode text not null check (mode in ('exclusive', 'shared')),
  token bigint not null,
  advisory bigint not null,
  advisory_held boolean not null default true,
  member_id uuid references member,
  command_id uuid,
  user_name text not null default '',
  reason text not null default '',
  granted_at timestamptz not null default clock_timestamp(),
  constraint lock_grant_pkey primary key (kind, id, token),
  constraint lock_grant_owner_check check (member_id is not null or command_id is not null)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
create unique index lock_grant_exclusive_key on lock_grant (kind, id) where mode = 'exclusive';
create index lock_grant_member_idx on lock_grant (member_id, advisory);
create index lock_grant_command_idx on lock_grant (command_id) where command_id is not null;
comment on column lock_grant.member_id is 'Null: the holder ended, an adopter of the command is awaited.';

create table leader (
  name text primary key,
  member_id uuid references member,
  term bigint not null default 0,
  acquired_at timestamptz
);
"""

EPOCH = """
create function cluster_epoch_current() returns bigint language plpgsql as $$
-- Return the epoch of this server's shared memory, recording it when it is new.
declare
  v_marker uuid;
  v_system bigint;
  v_timeline bigint;
  v_epoch bigint;
begin
  if pg_is_in_recovery() then
    raise exception 'this server is a standby: it cannot prove anything' using errcode = 'EP001';
  end if;
  select marker into v_marker from cluster_epoch_marker;
  if not found then
    insert into cluster_epoch_marker (marker) values (gen_random_uuid()) on conflict do nothing;
    select marker into strict v_marker from cluster_epoch_marker;
  end if;
  select system_identifier into v_system from pg_control_system();
  -- Read from the write position: the control file shows the old timeline for a while.
  v_timeline := ('x' || lpad(left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), 16, '0'))::bit(64)::bigint;
  loop
    select epoch_id into v_epoch from cluster_epoch
     where system_identifier = v_system and timeline = v_timeline
       and postmaster_started_at = pg_postmaster_start_time() and marker = v_marker;
    if found then
      return v_epoch;
    end if;
    perform pg_advisory_xact_lock(7003, 0);
    insert into cluster_epoch (epoch_id, system_identifier, timeline, postmaster_started_at, marker)
    select coalesce(max(epoch_id), 0) + 1, v_system, v_timeline, pg_postmaster_start_time(), v_marker
      from cluster_epoch
    on conflict on constraint cluster_epoch_life_key do nothing;
  end loop;
end $$;
"""

MEMBERS = """
create function member_join(
  p_member uuid, p_node text, p_ttl interval, p_address text, p_version text
) returns bigint language plpgsql as $$
-- Make this session the lock session of a new member; return the epoch.
declare
  v_epoch bigint := cluster_epoch_current();
begin
  insert into member (member_id, node, epoch_id, ttl, address, version,
                      backend_pid, backend_started_at, expires_at)
  select p_member, p_node, v_epoch, p_ttl, p_address, p_version,
         a.pid, a.backend_start, clock_timestamp() + p_ttl
    from pg_stat_activity a where a.pid = pg_backend_pid();
  return v_epoch;
end $$;

create function member_session_check(p_member uuid, p_session integer) returns bigint
language plpgsql as $$
-- First thing of every statement of a lock session: am I still it? Holds the member's row.
declare
  v_member member;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'a lock session works in READ COMMITTED' using errcode = 'EP006';
  end if;
  select * into v_member from member where member_id = p_member for no key update;
  if not found or v_member.state <> 'live' then
    raise exception 'member % was ended: %', p_member, coalesce(v_member.end_reason, 'no such member')
      using errcode = 'EP002';
  end if;
  if v_member.session_number <> p_session then
    raise exception 'lock session % of member % was succeeded by session %',
      p_session, p_member, v_member.session_number using errcode = 'EP003';
  end if;
  return v_member.epoch_id;
end $$;

create function cluster_commands_kept(p_member uuid, p_commands uuid[]) returns void
language plpgsql as $$
-- Vacate the member's commands that are not in the list; replaced by the owner of commands.
begin
end $$;

create function member_resume(
  p_member uuid, p_session integer, p_held jsonb, p_commands uuid[], p_leaderships jsonb
) returns jsonb language plpgsql as $$
-- Become lock session number p_session: end the predecessor's backend, take its advisory locks again
-- under the old tokens, and reconcile: what the member gave back, or was given without hearing of
-- it, is vacated (p_held, p_commands and p_leaderships list what it knows that it has).
-- Each try comes with a higher number: one that thaws late, with an old list, does nothing.
declare
  v_member member;
  v_epoch bigint := cluster_epoch_current();
  v_grant lock_grant;
  v_waiting integer := 0;
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
  for v_grant in select distinct on (advisory, mode) * from lock_grant
                  where member_id = p_member order by advisory, mode loop
    if v_grant.mode = 'shared' and pg_try_advisory_lock_shared(v_grant.advisory)
       or v_grant.mode = 'exclusive' and pg_try_advisory_lock(v_grant.advisory) then
      update lock_grant set advisory_held = true
       where member_id = p_member and advisory = v_grant.advisory and mode = v_grant.mode;
    else
      -- Somebody probes the key: he finds our grant and undoes it. The right is the grant's.
      update lock_grant set advisory_held = false
       where member_id = p_member and advisory = v_grant.advisory and mode = v_grant.mode;
      v_waiting := v_waiting + 1;
    end if;
  end loop;
  update member m set session_number = p_session, epoch_id = v_epoch, renewal = m.renewal + 1,
         renewed_at = clock_timestamp(), expires_at = clock_timestamp() + m.ttl,
         backend_pid = a.pid, backend_started_at = a.backend_start
    from pg_stat_activity a where m.member_id = p_member and a.pid = pg_backend_pid();
  return jsonb_build_object('epoch_id', v_epoch, 'waiting', v_waiting, 'grants', (
    select coalesce(jsonb_agg(jsonb_build_object('kind', kind, 'id', id, 'token', token)), '[]')
      from lock_grant where member_id = p_member));
end $$;

create function cluster_member_ended(p_member uuid) returns void language plpgsql as $$
-- Called in the transaction that ends a member; replaced by those who keep more under its lease.
begin
end $$;

create function member_end(
  p_member uuid, p_gate integer, p_renewal bigint, p_by uuid, p_reason text
) returns boolean language plpgsql as $$
-- End a member, once. The gate comes first, so that no fenced write of it is under way; whoever
-- holds it longer than 0.2 s is frozen and loses his connection. p_renewal is the counter that the
-- caller saw standing still (null: the member ends itself).
declare
  v_started timestamptz := clock_timestamp();
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
  while not pg_try_advisory_xact_lock(7001, p_gate) loop
    if clock_timestamp() > v_started + interval '0.2 s' then
      perform pg_terminate_backend(l.pid) from pg_locks l
        where l.locktype = 'advisory' and l.classid = 7001 and l.objsubid = 2 and l.granted
          and l.mode = 'ShareLock'  -- not another ender
          and l.objid = (p_gate::bigint & 4294967295)::oid and l.pid <> pg_backend_pid()
          and l.database = (select oid from pg_database where datname = current_database());
    end if;
    if clock_timestamp() > v_started + interval '2 s' then
      raise exception 'the gate of member % does not open', p_member using errcode = '55P03';
    end if;
    perform pg_sleep(0.01);
  end loop;
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
  delete from lock_grant where member_id = p_member and command_id is null;
  update lock_grant set member_id = null, advisory_held = false where member_id = p_member;
  update leader set member_id = null where member_id = p_member;
  return true;
end $$;
"""

LOCKS = """
create function lock_conflicts(p_kind text, p_id text, p_mode text) returns jsonb
language sql volatile as $$
-- Whoever stands in the way, whatever the state of its member: live, paused, ended or none.
  select jsonb_agg(jsonb_build_object(
           'kind', g.kind, 'id', g.id, 'mode', g.mode, 'token', g.token, 'member_id', g.member_id,
           'node', m.node, 'command_id', g.command_id, 'user_name', g.user_name, 'reason', g.reason,
           'age_s', extract(epoch from clock_timestamp() - g.granted_at)))
    from lock_grant g left join member m on m.member_id = g.member_id
   where g.kind = p_kind and g.id = p_id and (g.mode = 'exclusive' or p_mode = 'exclusive')
$$;

create function lock_advisory_undo(p_taken jsonb) returns void language plpgsql as $$
declare
  v_key record;
begin
  for v_key in select * from jsonb_to_recordset(p_taken) as t(advisory bigint, mode text) loop
    if v_key.mode = 'shared' then
      perform pg_advisory_unlock_shared(v_key.advisory);
    else
      perform pg_advisory_unlock(v_key.advisory);
    end if;
  end loop;
end $$;

create function lock_acquire(p_member uuid, p_epoch bigint, p_op jsonb) returns jsonb
language plpgsql as $$
-- All keys or none. Grants are looked at before the try and again in a statement begun after it:
-- one statement sees one snapshot, and a grant committed in between would be overlooked.
declare
  v_key record;
  v_taken jsonb := '[]';
  v_holders jsonb;
  v_got boolean;
  v_token bigint;
  v_tokens jsonb := '[]';
begin
  for v_key in select * from jsonb_to_recordset(p_op->'keys')
                 as k(kind text, id text, mode text, advisory bigint) loop
    v_holders := lock_conflicts(v_key.kind, v_key.id, v_key.mode);
    if v_holders is not null then
      perform lock_advisory_undo(v_taken);
      return jsonb_build_object('ok', false, 'holders', v_holders);
    end if;
    -- Session advisory locks count: one for each (key, mode) of a member, whatever its grants.
    perform 1 from lock_grant where member_id = p_member and advisory = v_key.advisory
                                and mode = v_key.mode and advisory_held;
    if not found then
      if v_key.mode = 'shared' then
        v_got := pg_try_advisory_lock_shared(v_key.advisory);
      else
        v_got := pg_try_advisory_lock(v_key.advisory);
      end if;
      if not v_got then
        perform lock_advisory_undo(v_taken);
        return jsonb_build_object('ok', false, 'holders', '[]'::jsonb);
      end if;
      v_taken := v_taken || jsonb_build_object('advisory', v_key.advisory, 'mode', v_key.mode);
    end if;
  end loop;
  for v_key in select * from jsonb_to_recordset(p_op->'keys')
                 as k(kind text, id text, mode text, advisory bigint) loop
    v_holders := lock_conflicts(v_key.kind, v_key.id, v_key.mode);
    if v_holders is not null then
      perform lock_advisory_undo(v_taken);
      return jsonb_build_object('ok', false, 'holders', v_holders);
    end if;
  end loop;
  for v_key in select * from jsonb_to_recordset(p_op->'keys')
                 as k(kind text, id text, mode text, advisory bigint) loop
    v_token := (p_epoch << 40) | nextval('fencing_token_seq');
    insert into lock_grant (kind, id, mode, token, advisory, member_id, command_id, user_name, reason)
    values (v_key.kind, v_key.id, v_key.mode, v_token, v_key.advisory, p_member,
            (p_op->>'command_id')::uuid, p_op->>'user_name', p_op->>'reason');
    v_tokens := v_tokens || to_jsonb(v_token);
  end loop;
  return jsonb_build_object('ok', true, 'tokens', v_tokens);
end $$;

create function lock_release(p_member uuid, p_op jsonb) returns jsonb language plpgsql as $$
declare
  v_key record;
  v_grant lock_grant;
begin
  for v_key in select * from jsonb_to_recordset(p_op->'grants') as g(kind text, id text, token bigint) loop
    delete from lock_grant where kind = v_key.kind and id = v_key.id and token = v_key.token
                             and member_id = p_member
    returning * into v_grant;
    if found and v_grant.advisory_held then
      perform 1 from lock_grant where member_id = p_member and advisory = v_grant.advisory
                                  and mode = v_grant.mode and advisory_held;
      if not found then
        perform lock_advisory_undo(jsonb_build_array(
          jsonb_build_object('advisory', v_grant.advisory, 'mode', v_grant.mode)));
      end if;
    end if;
  end loop;
  return '{"ok": true}';
end $$;

create function lock_follow(p_member uuid) returns integer language plpgsql as $$
-- The advisory lock follows a grant that came without it (adopted, or resumed under a probe).
declare
  v_key record;
  v_left integer := 0;
begin
  for v_key in select distinct advisory, mode from lock_grant
                where member_id = p_member and not advisory_held loop
    if exists (select from lock_grant where member_id = p_member and advisory = v_key.advisory
                                        and mode = v_key.mode and advisory_held)
       or v_key.mode = 'shared' and pg_try_advisory_lock_shared(v_key.advisory)
       or v_key.mode = 'exclusive' and pg_try_advisory_lock(v_key.advisory) then
      update lock_grant set advisory_held = true
       where member_id = p_member and advisory = v_key.advisory and mode = v_key.mode;
    else
      v_left := v_left + 1;
    end if;
  end loop;
  return v_left;
end $$;

create function cluster_command_claim(p_command uuid, p_member uuid) returns jsonb
language plpgsql as $$
-- Take an unowned command over, by compare-and-swap; null: not to be had. Replaced by its owner.
begin
  return '{}';
end $$;

create function cluster_command_vacate(p_command uuid, p_member uuid) returns boolean
language plpgsql as $$
-- Give a command up, unfinished; false: it was not the member's, or is over. Replaced by its owner.
begin
  return true;
end $$;

create function lock_unclaim(p_member uuid, p_op jsonb) returns jsonb language plpgsql as $$
-- The grants stand for an adopter, if there is something to adopt; the advisory locks go back.
declare
  v_command uuid := (p_op->>'command_id')::uuid;
  v_keys jsonb;
  v_key record;
begin
  select jsonb_agg(distinct jsonb_build_object('advisory', advisory, 'mode', mode)) into v_keys
    from lock_grant where member_id = p_member and command_id = v_command and advisory_held;
  if cluster_command_vacate(v_command, p_member) then
    update lock_grant set member_id = null, advisory_held = false
     where member_id = p_member and command_id = v_command;
  else
    delete from lock_grant where member_id = p_member and command_id = v_command;
  end if;
  for v_key in select * from jsonb_to_recordset(v_keys) as k(advisory bigint, mode text) loop
    perform 1 from lock_grant where member_id = p_member and advisory = v_key.advisory
                                and mode = v_key.mode and advisory_held;
    if not found then
      perform lock_advisory_undo(jsonb_build_array(
        jsonb_build_object('advisory', v_key.advisory, 'mode', v_key.mode)));
    end if;
  end loop;
  return '{"ok": true}';
end $$;

create function lock_claim(p_member uuid, p_epoch bigint, p_op jsonb) returns jsonb
language plpgsql as $$
-- Adopt a command together with its grants, under new tokens: the keys were never free in between.
declare
  v_claim jsonb := cluster_command_claim((p_op->>'command_id')::uuid, p_member);
  v_grants jsonb;
begin
  if v_claim is null then
    return '{"ok": false}';
  end if;
  with adopted as (
    update lock_grant set member_id = p_member, advisory_held = false,
           token = (p_epoch << 40) | nextval('fencing_token_seq'), granted_at = clock_timestamp()
     where command_id = (p_op->>'command_id')::uuid and member_id is null
    returning kind, id, mode, token)
  select coalesce(jsonb_agg(to_jsonb(adopted)), '[]') into v_grants from adopted;
  if v_grants <> '[]' then
    perform lock_follow(p_member);
  end if;
  return jsonb_build_object('ok', true, 'claim', v_claim, 'grants', v_grants);
end $$;
"""

LEADERS = """
create function leader_win(p_member uuid, p_op jsonb) returns jsonb language plpgsql as $$
-- The gate keeps a late fenced write of the old term from committing after the new one has begun.
declare
  v_term bigint;
begin
  if not pg_try_advisory_xact_lock(7002, (p_op->>'gate')::integer) then
    return '{"ok": false}';
  end if;
  update leader set member_id = p_member, term = term + 1, acquired_at = clock_timestamp()
   where name = p_op->>'name' and member_id is null and term = (p_op->>'term')::bigint
  returning term into v_term;
  return jsonb_build_object('ok', found, 'term', v_term);
end $$;

create function leader_resign(p_member uuid, p_op jsonb) returns jsonb language plpgsql as $$
begin
  update leader set member_id = null
   where name = p_op->>'name' and member_id = p_member and term = (p_op->>'term')::bigint;
  return jsonb_build_object('ok', found);
end $$;
"""

BATCH = """
create function cluster_batch(
  p_member uuid, p_session integer, p_sync boolean, p_observe boolean, p_ops jsonb
) returns jsonb language plpgsql as $$
-- The one statement of a lock session. A synchronous batch is a renewal; one of releases alone
-- commits without waiting: a release that is lost is repeated by the resume.
declare
  v_epoch bigint := member_session_check(p_member, p_session);
  v_op jsonb;
  v_results jsonb := '[]';
  v_view jsonb;
begin
  if p_sync then
    update member set renewal = renewal + 1, renewed_at = clock_timestamp(),
           expires_at = clock_timestamp() + ttl
     where member_id = p_member;
  else
    perform set_config('synchronous_commit', 'off', true);
  end if;
  for v_op in select value from jsonb_array_elements(p_ops) loop
    v_results := v_results || case v_op->>'op'
      when 'acquire' then lock_acquire(p_member, v_epoch, v_op)
      when 'release' then lock_release(p_member, v_op)
      when 'claim' then lock_claim(p_member, v_epoch, v_op)
      when 'unclaim' then lock_unclaim(p_member, v_op)
      when 'win' then leader_win(p_member, v_op)
      when 'resign' then leader_resign(p_member, v_op)
      when 'follow' then jsonb_build_object('left', lock_follow(p_member))
    end;
  end loop;
  if p_observe then
    select jsonb_build_object(
      'members', (select jsonb_agg(jsonb_build_object(
                    'member_id', member_id, 'node', node, 'renewal', renewal, 'draining', draining,
                    'ttl_s', extract(epoch from ttl), 'address', address))
                    from member where state = 'live'),
      'leaders', (select coalesce(jsonb_agg(jsonb_build_object(
                    'name', name, 'member_id', member_id, 'term', term)), '[]') from leader)
    ) into v_view;
  end if;
  return jsonb_build_object('results', v_results, 'view', v_view);
end $$;
"""

FENCE = """
create function cluster_command_owned(p_command uuid, p_member uuid, p_attempt integer) returns boolean
language sql volatile as $$ select true $$;

create function fence_enter(
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
                                   and g.token = h.token and g.member_id = p_member)) then
    raise exception 'a grant is no longer held under its token' using errcode = 'EP004';
  end if;
  if p_command is not null and not cluster_command_owned(p_command, p_member, p_attempt) then
    raise exception 'command % was taken over', p_command using errcode = 'EP004';
  end if;
end $$;
"""

DOWN = """
drop function fence_enter, cluster_command_owned, cluster_batch, leader_resign, leader_win,
  lock_claim, lock_unclaim, cluster_command_vacate, cluster_commands_kept, cluster_command_claim, lock_follow, lock_release, lock_acquire, lock_advisory_undo,
  lock_conflicts, member_end, cluster_member_ended, member_resume, member_session_check,
  member_join, cluster_epoch_current;
drop table leader, lock_grant, member, cluster_epoch_marker, cluster_epoch;
drop sequence fencing_token_seq;
"""


def upgrade() -> None:
    for part in (TABLES, EPOCH, MEMBERS, LOCKS, LEADERS, BATCH, FENCE):
        op.execute(part)


def downgrade() -> None:
    op.execute(DOWN)

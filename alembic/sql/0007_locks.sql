-- Locks, set by set: a batch of requests in a handful of statements; tickets; breaking.

drop function cluster_batch, lock_acquire, lock_release, lock_conflicts, lock_follow, lock_unclaim,
  lock_advisory_undo, member_resume;

create sequence lock_ticket_seq as bigint cache 1 no cycle;

create table lock_ticket (
  ticket bigint not null,
  kind text not null,
  id text not null,
  mode text not null check (mode in ('exclusive', 'shared')),
  member_id uuid not null,
  command_id uuid,
  user_name text not null default '',
  reason text not null default '',
  waiting_since timestamptz not null default clock_timestamp(),
  constraint lock_ticket_pkey primary key (kind, id, ticket)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
create index lock_ticket_member_idx on lock_ticket (member_id, ticket);
comment on table lock_ticket is
  'Who waits for a key, in the order of the tickets: one ticket for each request, one row for each key.';

-- Rows come and go thousands of times a second. A grant's member is checked by every batch, under
-- the member's row lock; a foreign key would check it once more for each row.
-- Tokens are unique, whatever the key: the epoch and one sequence. Grants are given back by them.
alter table lock_grant
  drop constraint lock_grant_member_id_fkey,
  drop constraint lock_grant_pkey,
  add constraint lock_grant_pkey primary key (token),
  add column broken_at timestamptz,
  add column broken_by text;
drop index lock_grant_member_idx;
create index lock_grant_member_idx on lock_grant (member_id);
create index lock_grant_key_idx on lock_grant (kind, id);
comment on column lock_grant.advisory_held is
  'The lock session counts one advisory lock for this grant: exactly one for each grant that says so.';
comment on column lock_grant.broken_at is
  'An operator broke it: no fence rests on it any more, and its holder is told to stop.';

create function lock_is_granted(p_kind text, p_id text, p_mode text) returns boolean
language sql volatile as $$
-- Any conflicting grant counts, whatever the state of its member: live, paused, ended or none.
  select exists (select from lock_grant g where g.kind = p_kind and g.id = p_id
                    and (g.mode = 'exclusive' or p_mode = 'exclusive'))
$$;

create function lock_is_awaited(p_kind text, p_id text, p_mode text, p_ticket bigint)
returns boolean language sql volatile as $$
-- Whether somebody waits who came earlier (p_ticket null: whoever waits came earlier).
  select exists (select from lock_ticket t where t.kind = p_kind and t.id = p_id
                    and t.ticket < coalesce(p_ticket, 9223372036854775807)
                    and (t.mode = 'exclusive' or p_mode = 'exclusive'))
$$;

create function lock_in_the_way(p_kind text, p_id text, p_mode text, p_ticket bigint)
returns jsonb language sql volatile as $$
-- Who stands in the way of a request, for people: grants first, then those who wait already.
  select jsonb_agg(to_jsonb(w)) from (
    select 'grant' as what, g.kind, g.id, g.mode, g.token, g.member_id, m.node, g.command_id,
           g.user_name, g.reason,
           round(extract(epoch from clock_timestamp() - g.granted_at), 3) as age_s
      from lock_grant g left join member m using (member_id)
     where g.kind = p_kind and g.id = p_id and (g.mode = 'exclusive' or p_mode = 'exclusive')
    union all
    select 'ticket', t.kind, t.id, t.mode, t.ticket, t.member_id, m.node, t.command_id,
           t.user_name, t.reason,
           round(extract(epoch from clock_timestamp() - t.waiting_since), 3)
      from lock_ticket t left join member m using (member_id)
     where t.kind = p_kind and t.id = p_id and (t.mode = 'exclusive' or p_mode = 'exclusive')
       and t.ticket < coalesce(p_ticket, 9223372036854775807)
    limit 20) w
$$;

create function lock_heads(p_kinds text[], p_ids text[]) returns uuid[] language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off
set enable_mergejoin = off as $$
-- The members to ring when keys became free: those whose tickets nobody precedes.
declare
  v_members uuid[];
begin
  select array_agg(distinct h.member_id) into v_members
    from unnest(p_kinds, p_ids) as k(kind, id), lateral (
      select t.member_id from lock_ticket t
       where t.kind = k.kind and t.id = k.id
         and not exists (select from lock_ticket e
                          where e.kind = t.kind and e.id = t.id and e.ticket < t.ticket
                            and (e.mode = 'exclusive' or t.mode = 'exclusive'))
      offset 0) h;  -- key by key, never all tickets for each
  return coalesce(v_members, '{}');
end $$;

create function lock_advisory_release(p_advisories bigint[], p_modes text[]) returns void
language plpgsql as $$
-- Give each back once: session advisory locks count.
begin
  perform case k.mode when 'shared' then pg_advisory_unlock_shared(k.advisory)
                      else pg_advisory_unlock(k.advisory) end
     from unnest(p_advisories, p_modes) as k(advisory, mode);
end $$;

create function lock_release(p_member uuid, p_kinds text[], p_ids text[], p_tokens bigint[])
returns uuid[] language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off
set enable_mergejoin = off as $$
-- Delete grants by their tokens; return whom to ring. The heads are looked up after the unlock: a
-- waiter that they miss asks once more after its ticket, and then finds the advisory lock free.
declare
  v_advisories bigint[];
  v_modes text[];
begin
  with gone as (
    delete from lock_grant
     where token = any (p_tokens)
       and (member_id = p_member) is true  -- not through its index: a member has thousands
    returning advisory, mode, advisory_held)
  select array_agg(advisory), array_agg(mode) into v_advisories, v_modes
    from gone where advisory_held;
  perform lock_advisory_release(v_advisories, v_modes);
  if not exists (select from lock_ticket) then  -- nobody waits for anything: most often
    return '{}';
  end if;
  return lock_heads(p_kinds, p_ids);
end $$;

create function lock_acquire(
  p_member uuid, p_epoch bigint,
  p_tickets bigint[], p_tries boolean[], p_waits boolean[], p_commands uuid[], p_users text[],
  p_reasons text[],
  p_requests integer[], p_kinds text[], p_ids text[], p_modes text[], p_advisories bigint[]
) returns jsonb language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off
set enable_mergejoin = off as $$
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
      or exists (select from lock_grant g where g.kind = k.kind and g.id = k.id
                    and (g.mode = 'exclusive' or k.mode = 'exclusive'))
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
  if exists (select from unnest(p_tickets) as r(ticket) where r.ticket is not null) then
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

create function lock_refuse(
  p_member uuid, p_refused integer[], p_got boolean[],
  p_tickets bigint[], p_tries boolean[], p_waits boolean[], p_commands uuid[], p_users text[],
  p_reasons text[],
  p_requests integer[], p_kinds text[], p_ids text[], p_modes text[], p_advisories bigint[]
) returns jsonb language plpgsql as $$
-- Undo the tries of refused requests; give a ticket to who waits, and tell the others who stands in
-- the way. 'again': a key's advisory lock and its grants disagree (somebody asks or gives back at
-- this instant, or a grant is not resumed yet), so that no ring may come: ask again shortly.
declare
  v_request integer;
  v_ticket bigint;
  v_again boolean;
  v_holders jsonb;
  v_answers jsonb := '[]';
begin
  perform lock_advisory_release(array_agg(k.advisory), array_agg(k.mode))
     from unnest(p_requests, p_modes, p_advisories, p_got) as k(request, mode, advisory, got)
    where k.got and k.request = any (p_refused);
  foreach v_request in array p_refused loop
    v_ticket := p_tickets[v_request];
    select p_tries[v_request] and bool_or(case when k.got
             then lock_is_granted(k.kind, k.id, k.mode)
             else not lock_is_granted(k.kind, k.id, k.mode)
                  and not lock_is_awaited(k.kind, k.id, k.mode, v_ticket) end)
      into v_again
      from unnest(p_requests, p_kinds, p_ids, p_modes, p_got) as k(request, kind, id, mode, got)
     where k.request = v_request;
    v_holders := null;
    if not p_waits[v_request] then
      select jsonb_agg(h.holder) into v_holders
        from unnest(p_requests, p_kinds, p_ids, p_modes) as k(request, kind, id, mode),
             jsonb_array_elements(lock_in_the_way(k.kind, k.id, k.mode, null)) as h(holder)
       where k.request = v_request;
    elsif v_ticket is null or not exists (
        select from lock_ticket where member_id = p_member and ticket = v_ticket) then
      -- Or it went with a grant whose answer was lost, and the resume took that grant back: the
      -- place is the old one, and who released meanwhile did not see it.
      v_again := v_ticket is not null;
      v_ticket := coalesce(v_ticket, nextval('lock_ticket_seq'));
      insert into lock_ticket (ticket, kind, id, mode, member_id, command_id, user_name, reason)
      select v_ticket, k.kind, k.id, k.mode, p_member, p_commands[v_request],
             p_users[v_request], p_reasons[v_request]
        from unnest(p_requests, p_kinds, p_ids, p_modes) as k(request, kind, id, mode)
       where k.request = v_request;
    end if;
    v_answers := v_answers || jsonb_build_object(
      'request', v_request, 'ticket', v_ticket, 'again', v_again, 'holders', v_holders);
  end loop;
  return v_answers;
end $$;

create function lock_withdraw(p_member uuid, p_ticket bigint) returns jsonb language plpgsql as $$
-- Give a ticket back, and tell who stood in the way. Whom to ring is asked after the commit: a
-- ticket that is not visible yet will have seen this one, even when it asks once more.
declare
  v_holders jsonb;
begin
  select jsonb_agg(h.holder) into v_holders
    from lock_ticket t,
         jsonb_array_elements(lock_in_the_way(t.kind, t.id, t.mode, p_ticket)) as h(holder)
   where t.member_id = p_member and t.ticket = p_ticket;
  delete from lock_ticket where member_id = p_member and ticket = p_ticket;
  return jsonb_build_object('ok', true, 'holders', v_holders);
end $$;

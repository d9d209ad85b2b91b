"""Where leaderships belong: weights, pins, resignations on request, draining; cheap looks.

On the cluster's own branch.
"""

from alembic import op

revision = "0006"
down_revision = "0001"

TABLES = """
alter table member
  add column weight double precision not null default 1 check (weight >= 0),
  add column drain_heard_at timestamptz,
  add column revision bigint not null default 1;
comment on column member.weight is 'Share of the leaderships, beside the others'' weights; 0: none, while others lead.';
comment on column member.drain_heard_at is 'When the member heard that it is to drain: from then on it takes no new work.';
comment on column member.revision is 'Rises with what a look tells beside the counter.';

-- Beside the member's row, which every renewal writes anew.
create table member_offer (
  member_id uuid primary key references member on delete cascade,
  names text[] not null
);
comment on table member_offer is
  'The singletons that a member knows how to run; without a row (a node of an older version): all.';

alter table leader
  add column pinned_node text,
  add column avoid_member_id uuid,
  add column revision bigint not null default 1;
comment on column leader.pinned_node is 'Preferred, while it has a live member that takes work.';
comment on column leader.avoid_member_id is 'Was asked to resign: leads it again only when nobody else can.';
comment on column leader.revision is 'Rises with every change of the row, so that their sum tells whether any changed.';
"""

REVISIONS = """
create function cluster_revise() returns trigger language plpgsql as $$
begin
  new.revision := old.revision + 1;
  return new;
end $$;
create trigger leader_revise before update on leader for each row execute function cluster_revise();
create trigger member_revise before update of draining, weight on member
  for each row execute function cluster_revise();
"""

VIEW = """
create function cluster_view(p_seen text) returns jsonb language plpgsql as $$
-- What a member sees of the cluster: the counters at every look, all else only when it is not what
-- the caller saw last (p_seen: `seen` of his last view; '' for everything, null for the counters
-- alone). `seen` is made of what is visible, so that no order of commits hides a change: revisions
-- only rise.
declare
  v_counters jsonb;
  v_live text;
  v_seen text;
begin
  if p_seen is null then
    return jsonb_build_object('counters', (
      select jsonb_object_agg(member_id, renewal) from member where state = 'live'));
  end if;
  select jsonb_object_agg(member_id, renewal), bit_xor(uuid_hash_extended(member_id, revision))
    into v_counters, v_live from member where state = 'live';
  select concat(v_live, ':', count(*), ':', sum(revision)) into v_seen from leader;
  if v_seen = p_seen then
    return jsonb_build_object('seen', v_seen, 'counters', v_counters);
  end if;
  return jsonb_build_object('seen', v_seen, 'counters', v_counters,
    'members', (select jsonb_agg(jsonb_build_object(
        'member_id', member_id, 'node', node, 'draining', draining, 'weight', weight,
        'ttl_s', extract(epoch from ttl), 'joined_s', extract(epoch from joined_at),
        'offers', md5(o.names::text)))
      from member left join member_offer o using (member_id) where state = 'live'),
    'offers', (select coalesce(jsonb_object_agg(key, names), '{}') from (
        select distinct on (key) md5(o.names::text) as key, to_jsonb(o.names) as names
          from member_offer o join member using (member_id) where state = 'live') as distinct_offers),
    'leaders', (select coalesce(jsonb_agg(jsonb_build_object(
        'name', name, 'member_id', member_id, 'term', term, 'pinned_node', pinned_node,
        'avoid_member_id', avoid_member_id)), '[]') from leader));
end $$;
"""

ORDERS = """
create function member_declare(p_member uuid, p_weight double precision, p_offers text[])
returns void language plpgsql as $$
-- What a new member can lead, and how much of it.
begin
  insert into leader (name) select unnest(p_offers) order by 1 on conflict do nothing;
  insert into member_offer (member_id, names) values (p_member, p_offers)
    on conflict (member_id) do update set names = excluded.names;
  update member set weight = p_weight where member_id = p_member;  -- and its revision
end $$;

create function member_drain(p_node text, p_on boolean) returns jsonb language plpgsql as $$
-- Tell a node's live members to take no work any more, or to take some again. Nothing changes when
-- nobody would be left to take it (others: 0).
declare
  v_members integer;
  v_others integer;
begin
  perform pg_advisory_xact_lock(7003, 1);  -- two nodes drained at once: the second sees the first
  select count(*) filter (where node = p_node), count(*) filter (where node <> p_node and not draining)
    into v_members, v_others from member where state = 'live';
  if not p_on or v_others > 0 then
    update member set draining = p_on, drain_heard_at = null
     where node = p_node and state = 'live' and draining <> p_on;
  end if;
  return jsonb_build_object('members', v_members, 'others', v_others);
end $$;

create function member_drain_heard(p_member uuid) returns void language sql as $$
  update member set drain_heard_at = clock_timestamp() where member_id = p_member and draining
$$;

create function leader_pin(p_name text, p_node text) returns boolean language plpgsql as $$
-- Null: pinned no more. An order to lead it there outdoes an older one to resign it.
begin
  update leader set pinned_node = p_node,
         avoid_member_id = case when p_node is null then avoid_member_id end
   where name = p_name;
  return found;
end $$;

create function leader_ask_to_resign(p_name text) returns uuid language sql as $$
-- Ask who leads it to resign, and return him; null: nobody leads it.
  update leader set avoid_member_id = member_id
   where name = p_name and member_id is not null returning member_id
$$;

create or replace function leader_win(p_member uuid, p_op jsonb) returns jsonb language plpgsql as $$
-- The gate keeps a late fenced write of the old term from committing after the new one has begun.
-- A draining member wins nothing: its row is locked by its batch, so that an order to drain is
-- either seen here or waits until this is committed.
declare
  v_term bigint;
begin
  if not pg_try_advisory_xact_lock(7002, (p_op->>'gate')::integer) then
    return '{"ok": false}';
  end if;
  update leader set member_id = p_member, term = term + 1, acquired_at = clock_timestamp()
   where name = p_op->>'name' and member_id is null and term = (p_op->>'term')::bigint
     and not exists (select from member where member_id = p_member and draining)
  returning term into v_term;
  return jsonb_build_object('ok', found, 'term', v_term);
end $$;
"""

DOWN = """
drop function leader_ask_to_resign, leader_pin, member_drain_heard, member_drain, member_declare,
  cluster_view;
drop trigger member_revise on member;
drop trigger leader_revise on leader;
drop function cluster_revise;
alter table leader drop column pinned_node, drop column avoid_member_id, drop column revision;
drop table member_offer;
alter table member drop column weight, drop column drain_heard_at,
  drop column revision;
create or replace function leader_win(p_member uuid, p_op jsonb) returns jsonb language plpgsql as $$
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
"""


def upgrade() -> None:
    for part in (TABLES, REVISIONS, VIEW, ORDERS):
        op.execute(part)


def downgrade() -> None:
    op.execute(DOWN)

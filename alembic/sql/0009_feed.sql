-- What a table's rows turn into is appended to `change` by the writer itself, in his transaction.
-- @ stands for the schema: writers call this from sessions with any search path, and may keep a
-- temporary table named `change`.
do $feed$ begin execute replace($body$

create table @change (
  change_id bigint generated always as identity (cache 1),
  xid xid8 not null default pg_current_xact_id(),
  topic text not null,
  key text not null,
  op text not null check (op in ('insert', 'update', 'delete', 'resync')),
  version bigint,
  at timestamptz not null default clock_timestamp(),
  payload jsonb,
  constraint change_pkey primary key (change_id)
) with (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000,
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
create index change_xid_idx on @change (xid);
comment on table @change is
  'What changed, in the writer''s own transaction. Its ids become visible out of order: read it by snapshots.';

create table @feed_horizon (
  epoch_id bigint primary key references @cluster_epoch,
  horizon xid8 not null,
  trimmed_at timestamptz not null default clock_timestamp()
);
comment on table @feed_horizon is
  'Of an epoch, changes of transactions below the horizon may be gone: older cursors need a new copy.';

-- An epoch's end empties it, and with it ends every cursor.
create unlogged table @feed_reader (
  reader_id uuid primary key,
  name text not null,
  epoch_id bigint not null,
  oldest xid8 not null,
  read_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);
comment on column @feed_reader.oldest is 'It has not seen all transactions from this one on.';

create function @feed_epoch() returns bigint language plpgsql stable as $$
-- The epoch, as the caller's snapshot sees it; null on a standby, and before it is recorded.
begin
  if pg_is_in_recovery() then
    return null;
  end if;
  return (select epoch_id from @cluster_epoch
           where system_identifier = (select system_identifier from pg_control_system())
             and timeline = ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint
             and postmaster_started_at = pg_postmaster_start_time()
             and marker = (select marker from @cluster_epoch_marker));
end $$;

create function @feed_ring() returns void language plpgsql as $$
-- Engine nodes ring after their commit: a NOTIFY in a transaction makes all commits that have one
-- wait for each other. Whoever else writes does not know about bells.
begin
  if current_setting('engine_pg.rings', true) is distinct from 'after commit' then
    perform pg_notify(@cluster_channel(), 'changes');
  end if;
end $$;

create function @feed_append() returns trigger language plpgsql as $$
-- Arguments: topic, column of the version ('': none), columns left out, then the key's columns.
-- The row is written and its lock held when the id is drawn: ids of one key rise as it changes.
declare
  v_row jsonb := to_jsonb(coalesce(new, old));
  v_op text := lower(tg_op);
  v_key text;
begin
  if tg_op = 'UPDATE' and tg_argv[2] <> '{}'
     and v_row - tg_argv[2]::text[] = to_jsonb(old) - tg_argv[2]::text[] then
    return null;
  end if;
  if tg_name = '0_feed_rekey' then
    insert into @change (topic, key, op, version)
    values (tg_argv[0], @feed_key(to_jsonb(old), tg_argv[3:]), 'delete',
            (to_jsonb(old) ->> tg_argv[1])::bigint);
    v_op := 'insert';
  end if;
  v_key := case when tg_nargs = 4 then v_row ->> tg_argv[3] else @feed_key(v_row, tg_argv[3:]) end;
  insert into @change (topic, key, op, version, payload)
  values (tg_argv[0], v_key, v_op, (v_row ->> tg_argv[1])::bigint,
          case when v_op <> 'delete' then v_row - tg_argv[2]::text[] end);
  if current_setting('engine_pg.rings', true) is distinct from 'after commit' then
    perform @feed_ring();
  end if;
  return coalesce(new, old);
end $$;

create function @feed_key(p_row jsonb, p_columns text[]) returns text language sql immutable as $$
-- One column as its text, several as a JSON array.
  select case when cardinality(p_columns) = 1 then p_row ->> (p_columns)[array_lower(p_columns, 1)]
              else (select jsonb_agg(p_row -> name order by number)::text
                      from unnest(p_columns) with ordinality as c(name, number)) end
$$;

create function @feed_resync(p_topic text) returns void language plpgsql as $$
-- Tell the readers of a topic to take a new copy: what happened can't be told row by row.
begin
  insert into @change (topic, key, op) values (p_topic, '', 'resync');
  perform @feed_ring();
end $$;

create function @feed_truncated() returns trigger language plpgsql as $$
begin
  perform @feed_resync(tg_argv[0]);
  return null;
end $$;

create function @feed_detach("table" regclass) returns void language plpgsql as $$
-- The table's changes are appended no more; its readers take a new copy, and then hear nothing.
declare
  v_trigger record;
begin
  for v_trigger in select tgname, tgargs from pg_trigger t
                    where tgrelid = "table" and not tgisinternal and tgparentid = 0
                      and tgfoid in ('@feed_append'::regproc, '@feed_truncated'::regproc) loop
    execute format('drop trigger %I on %s', v_trigger.tgname, "table");
    if v_trigger.tgname = '0_feed_truncate' then
      perform @feed_resync(split_part(encode(v_trigger.tgargs, 'escape'), '\000', 1));
    end if;
  end loop;
end $$;

create function @feed_attach(
  "table" regclass,
  key text[] default null,
  without text[] default '{}',
  news text[] default null,
  version text default null,
  topic text default null
) returns void language plpgsql as $$
-- Append what changes in the table from now on, under a topic (the table's name, if none is given).
-- key: the columns that tell a row (default: the primary key). without: columns that never leave
-- the table. news: only updates of these are told (default: of all but those left out). version:
-- a column that rises (default: an integer column `version`).
-- Calling it again changes these.
declare
  v_columns text[] := array(select attname from pg_attribute
                             where attrelid = "table" and attnum > 0 and not attisdropped);
  v_key text[] := coalesce(key, array(
    select a.attname from pg_index i, unnest(i.indkey) with ordinality as k(number, place)
      join pg_attribute a on a.attrelid = "table" and a.attnum = k.number
     where i.indrelid = "table" and i.indisprimary order by k.place));
  v_topic text := coalesce(topic, (select relname from pg_class where oid = "table"));
  v_version text := coalesce(version, (
    select attname from pg_attribute where attrelid = "table" and attname = 'version'
       and not attisdropped and atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)), '');
  v_strange text := (select name from unnest(v_key || without || news || nullif(v_version, '')) as c(name)
                      where name <> all (v_columns) limit 1);
  v_old text;
  v_new text;
  v_changed text;
  v_other_key text;
  v_call text;
begin
  if cardinality(v_key) = 0 then
    raise exception 'the table % has no primary key: name the columns of its key', "table"
      using errcode = '22023';
  elsif v_strange is not null then
    raise exception 'the table % has no column %', "table", v_strange using errcode = '42703';
  elsif v_key && without then
    raise exception 'the key can''t be left out' using errcode = '22023';
  end if;
  select string_agg(format('old.%I', name), ', '), string_agg(format('new.%I', name), ', ')
    into v_old, v_new from unnest(v_key) as c(name);
  v_other_key := format('row(%s) is distinct from row(%s)', v_old, v_new);
  v_changed := 'old *<> new';  -- as they are stored: not every type can be compared
  if news is not null then
    select string_agg(format('old.%I', name), ', '), string_agg(format('new.%I', name), ', ')
      into v_old, v_new from unnest(news) as c(name);
    v_changed := format('row(%s) is distinct from row(%s)', v_old, v_new);
  end if;
  select format('@feed_append(%L, %L, %L, %s)', v_topic, v_version, without,
                string_agg(quote_literal(name), ', '))
    into v_call from unnest(v_key) as c(name);
  perform @feed_detach("table");
  -- Their names sort first: another trigger of the table may write the row again, after these.
  execute format('create trigger "0_feed_change" after insert or delete on %s'
                 ' for each row execute function %s', "table", v_call);
  execute format('create trigger "0_feed_rekey" after update on %s'
                 ' for each row when (%s) execute function %s', "table", v_other_key, v_call);
  execute format('create trigger "0_feed_update" after update on %s for each row'
                 ' when (not (%s) and %s) execute function %s', "table", v_other_key, v_changed, v_call);
  execute format('create trigger "0_feed_truncate" after truncate on %s'
                 ' for each statement execute function @feed_truncated(%L)', "table", v_topic);
  perform @feed_resync(v_topic);  -- of the rows that are there already
end $$;

create function @feed_trim(
  p_keep interval, p_most interval, p_most_rows bigint, p_patience interval, p_slice integer
) returns jsonb language plpgsql as $$
-- Delete a slice of what all have read: changes older than p_keep that every live reader has seen
-- (one that read within p_patience); whether he has or not, when they are older than p_most or more
-- than p_most_rows. Whatever is deleted lies below a horizon that no running transaction can still
-- commit below, and that every read returns: who has not read so far is told.
declare
  v_epoch bigint := @cluster_epoch_current();
  v_now timestamptz := clock_timestamp();
  v_limit xid8 := pg_snapshot_xmin(pg_current_snapshot());
  v_held xid8;
  v_first xid8;
  v_end xid8;
  v_stop xid8;
  v_horizon xid8;
  v_age interval;
  v_trimmed bigint;
begin
  delete from @feed_reader where epoch_id <> v_epoch or read_at < v_now - p_patience;
  -- A dump that was restored brings transactions of another server's future.
  delete from @change where xid >= pg_snapshot_xmax(pg_current_snapshot())
     and not exists (select from @feed_horizon where epoch_id = v_epoch);
  insert into @feed_horizon (epoch_id, horizon) values (v_epoch, '0') on conflict do nothing;
  select xid into v_first from @change order by xid limit 1;
  if (select max(change_id) - min(change_id) from @change) >= p_most_rows then
    v_age := interval '0';
  else
    v_age := p_keep;
    select oldest into v_held from @feed_reader order by oldest limit 1;
    if exists (select from @change where xid = v_first and at < v_now - p_most) then
      v_age := p_most;
      v_held := null;
    end if;
  end if;
  v_end := least(v_limit, v_held);
  -- In the order of xid: what is young stops it, wherever it stands, for ages do not follow xids.
  select xid into v_stop from (select xid, at from @change order by xid limit p_slice) as slice
   where at > v_now - v_age order by xid limit 1;
  if not found then
    select xid into v_stop from @change order by xid offset p_slice limit 1;
    if v_stop = v_first then  -- one transaction larger than a slice
      select xid into v_stop from @change where xid > v_first order by xid limit 1;
    end if;
  end if;
  v_horizon := least(v_end, v_stop);
  delete from @change where xid < v_horizon;
  get diagnostics v_trimmed = row_count;
  if v_trimmed > 0 then
    update @feed_horizon set horizon = greatest(horizon, v_horizon), trimmed_at = v_now
     where epoch_id = v_epoch;
  end if;
  return jsonb_build_object('trimmed', v_trimmed, 'more', v_trimmed > 0 and v_horizon = v_stop,
    'passed', (select count(*) from @feed_reader where oldest < v_horizon and v_trimmed > 0));
end $$;

$body$, '@', quote_ident(current_schema()) || '.'); end $feed$;

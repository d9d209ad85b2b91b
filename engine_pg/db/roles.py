"""The roles of a database, as SQL that a DBA can read and run.

    owner    owns every object and migrates; nodes never use it
    runtime  what nodes run as: rows, never definitions; history is appended to, not rewritten
    read     reads all tables, without what logins rest on
    monitor  figures of the server and of the coordination, nothing of the inventory

What each may do with which table stands in a function of the database, `privileges_grant`, which
every migration calls at its end; what is made outside of migrations has default privileges. So
nothing has to be granted by hand after an upgrade.

Does not promise: that a superuser's own objects in the schema `public` stay his: they are the
owner's afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import psycopg

from engine_pg.db.scram import verifier
from engine_pg.db.urls import libpq_url
from engine_pg.errors import DatabaseAway, Forbidden, Invalid

KINDS: Final = ("owner", "runtime", "read", "monitor")
_PREFIX: Final = re.compile(r"[a-z_][a-z0-9_]{0,40}")

ROLES: Final = """\
-- The roles of the engine's database. Run it connected to that database, as a superuser or as who
-- may create roles and owns the database. Running it again changes nothing but the passwords given.

begin;

do $$
declare
  v_role text;
begin
  foreach v_role in array array['@owner', '@runtime', '@read', '@monitor'] loop
    if to_regrole(v_role) is null then
      execute format('create role %I login', v_role);
    elsif (select rolsuper or rolbypassrls or rolreplication from pg_roles
            where rolname = v_role) then
      raise exception 'the role % exists and may do far too much', v_role;
    end if;
  end loop;
  if not (select rolsuper from pg_roles where rolname = current_user) then
    execute format('grant @owner to %I', current_user);  -- else he could not set its defaults
  end if;
  execute format('revoke all on database %I from public', current_database());
  execute format('grant connect, create, temporary on database %I to @owner', current_database());
  execute format('grant connect on database %I to @runtime, @read, @monitor', current_database());
end $$;

alter role @read set default_transaction_read_only = on;
alter role @monitor set default_transaction_read_only = on;
alter role @monitor set statement_timeout = '15s';
-- pg_checkpoint: before a planned switchover.
do $$
declare
  v_grant text;
begin
  foreach v_grant in array array['grant pg_monitor to @monitor', 'grant pg_checkpoint to @runtime']
  loop
    begin
      execute v_grant;
    exception when insufficient_privilege then
      raise warning 'a superuser is to run: %', v_grant;
    end;
  end loop;
end $$;
@passwords
revoke all on schema public from public;
grant usage, create on schema public to @owner;
grant usage on schema public to @runtime, @read, @monitor;

-- What others made in the schema, by an earlier migration, is the owner's.
do $$
declare
  v_statement text;
begin
  for v_statement in
    select format('alter table %s owner to @owner', oid::regclass) from pg_class c
     where relnamespace = 'public'::regnamespace and relowner <> '@owner'::regrole
       and (relkind in ('r', 'p', 'v', 'm') or relkind = 'S' and not exists (
         select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
            and d.deptype in ('a', 'i')))
       and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
    union all
    select format('alter routine %s owner to @owner', oid::regprocedure) from pg_proc p
     where pronamespace = 'public'::regnamespace and proowner <> '@owner'::regrole
       and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    union all
    select format('alter type %s owner to @owner', t.oid::regtype) from pg_type t
     where typnamespace = 'public'::regnamespace and typowner <> '@owner'::regrole
       and (typtype in ('e', 'd') or typtype = 'c' and exists (
         select from pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
  loop
    execute v_statement;
  end loop;
end $$;

alter default privileges for role @owner revoke execute on functions from public;
alter default privileges for role @owner in schema public
  grant select, insert, update, delete on tables to @runtime;
alter default privileges for role @owner in schema public
  grant usage, select on sequences to @runtime;
alter default privileges for role @owner in schema public grant execute on functions to @runtime;
alter default privileges for role @owner in schema public grant select on tables to @read;

create or replace function public.privileges_grant() returns void language plpgsql
set search_path = pg_catalog, public, pg_temp as $grant$
-- What each role may do, all tables together and then one by one. Each migration calls this last.
declare
  v_table record;
begin
  revoke execute on all functions in schema public from public;
  grant select, insert, update, delete on all tables in schema public to @runtime;
  grant usage, select on all sequences in schema public to @runtime;
  grant execute on all functions in schema public to @runtime;
  grant select on all tables in schema public to @read;
  for v_table in select * from (values
      ('alembic_version', 'insert, update, delete'),  -- how far it is migrated: the owner's word
      ('schema_serves', 'insert, update, delete'),
      ('cluster_epoch', 'update, delete'),  -- history, which tokens rest on
      ('setting_change', 'update, delete'),  -- who changed what: kept for ever
      ('event', 'update'),
      ('change', 'update')) as narrow(name, never) where to_regclass(name) is not null loop
    execute format('revoke %s on %I from @runtime', v_table.never, v_table.name);
  end loop;
  if to_regprocedure('privileges_grant()') is not null then
    revoke execute on function privileges_grant() from @runtime;
  end if;
  -- Readers see no column that logins rest on, and not the feed's copies of rows.
  for v_table in
    select relname as name,
           string_agg(format('%I', attname), ', ') filter (where not secret) as columns
      from (select c.relname, a.attname, a.attname ~ 'hash|password|secret'
                   or c.relname = 'change' and a.attname = 'payload' as secret
              from pg_class c join pg_attribute a on a.attrelid = c.oid
             where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
               and a.attnum > 0 and not a.attisdropped) as each_column
     group by relname having bool_or(secret) loop
    execute format('revoke select on %I from @read', v_table.name);
    execute format('grant select (%s) on %I to @read', v_table.columns, v_table.name);
  end loop;
  -- Monitoring sees how the coordination is, not what is coordinated.
  for v_table in select * from (values
      ('alembic_version', ''), ('schema_serves', ''), ('cluster_epoch', ''), ('member', ''),
      ('leader', ''), ('lock_grant', ''), ('lock_ticket', ''), ('feed_horizon', ''),
      ('feed_reader', ''), ('procrastinate_jobs', ''), ('schedule', ''), ('schedule_run', ''),
      ('formation', ''), ('change', '(change_id, xid, topic, op, at)'),
      ('command', '(command_id, name, state, member_id, attempt, deaths, queue, submitted_at,'
                  ' started_at, ended_at)')) as seen(name, columns)
   where to_regclass(name) is not null loop
    execute format('grant select %s on %I to @monitor', v_table.columns, v_table.name);
  end loop;
end $grant$;
alter function public.privileges_grant() owner to @owner;
select public.privileges_grant();

commit;
"""


def names(prefix: str = "engine") -> dict[str, str]:
    """Return the name of each kind of role."""
    if not _PREFIX.fullmatch(prefix) or prefix.startswith("pg_"):
        raise Invalid(f"{prefix!r} is no beginning of roles' names: lower-case letters, digits, _")
    return {kind: f"{prefix}_{kind}" for kind in KINDS}


def sql(prefix: str = "engine", passwords: Mapping[str, str] | None = None) -> str:
    """Return the SQL that makes the roles; of a password it holds the verifier alone."""
    roles = names(prefix)
    given = "".join(
        f"alter role {roles[kind]} password '{verifier(password)}';\n"
        for kind, password in (passwords or {}).items()
    )
    text = ROLES.replace("@passwords", given)
    return re.sub(r"@(owner|runtime|read|monitor)\b", lambda match: roles[match[1]], text)


def make(url: str, prefix: str = "engine", passwords: Mapping[str, str] | None = None) -> None:
    """Make the roles in the database, as who the URL names."""
    text = sql(prefix, passwords)
    try:
        with psycopg.connect(libpq_url(url), autocommit=True) as connection:
            connection.execute(text.encode())
    except psycopg.errors.InsufficientPrivilege as error:
        raise Forbidden(f"this role may not make roles: {error}".strip()) from error
    except psycopg.errors.RaiseException as error:
        raise Invalid(error.diag.message_primary or str(error)) from error
    except psycopg.OperationalError as error:
        raise DatabaseAway(str(error).strip()) from error

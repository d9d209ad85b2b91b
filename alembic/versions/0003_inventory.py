"""The inventory and its change feed."""

from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = """
create table data_center (
  data_center_id uuid not null,
  name text not null,
  description text default '' not null,
  comment text default '' not null,
  local boolean default false not null,
  status text default 'up' not null,
  attrs jsonb default '{}' not null,
  version bigint default 1 not null,
  created_at timestamptz default now() not null,
  constraint data_center_pkey primary key (data_center_id)
);
create unique index data_center_name_key on data_center (lower(name));

create table cluster (
  cluster_id uuid not null,
  data_center_id uuid not null,
  name text not null,
  description text default '' not null,
  comment text default '' not null,
  cpu_architecture text default 'x86_64' not null,
  cpu_type text default '' not null,
  attrs jsonb default '{}' not null,
  version bigint default 1 not null,
  created_at timestamptz default now() not null,
  constraint cluster_pkey primary key (cluster_id),
  constraint cluster_data_center_id_fkey foreign key (data_center_id) references data_center (data_center_id)
);
create index cluster_data_center_id_idx on cluster (data_center_id);
create unique index cluster_name_key on cluster (lower(name));

create table host (
  host_id uuid not null,
  cluster_id uuid not null,
  name text not null,
  description text default '' not null,
  comment text default '' not null,
  address text not null,
  port integer default 54321 not null,
  status text not null,
  status_detail text default '' not null,
  hardware_id uuid,
  boot_id text default '' not null,
  fencing text default 'none' not null,
  cpu_sockets integer default 0 not null,
  cpu_cores integer default 0 not null,
  cpu_threads integer default 0 not null,
  cpu_model text default '' not null,
  memory_bytes bigint default 0 not null,
  software_version text default '' not null,
  attrs jsonb default '{}' not null,
  version bigint default 1 not null,
  created_at timestamptz default now() not null,
  constraint host_pkey primary key (host_id),
  constraint host_status_check check (status in (
    'installing', 'install_failed', 'unassigned', 'connecting', 'up', 'non_responsive',
    'non_operational', 'preparing_for_maintenance', 'maintenance', 'error')),
  constraint host_port_check check (port between 1 and 65535),
  constraint host_cluster_id_fkey foreign key (cluster_id) references cluster (cluster_id)
);
create unique index host_address_key on host (address, port);
create index host_cluster_id_idx on host (cluster_id);
create unique index host_name_key on host (lower(name));

create table host_statistics (
  host_id uuid not null,
  cpu_percent double precision default 0 not null,
  memory_free_bytes bigint default 0 not null,
  vm_active integer default 0 not null,
  vm_count integer default 0 not null,
  failures integer default 0 not null,
  seen_at timestamptz,
  constraint host_statistics_pkey primary key (host_id),
  constraint host_statistics_host_id_fkey foreign key (host_id) references host (host_id) on delete cascade
) with (fillfactor = 50);

create table vm (
  vm_id uuid not null,
  cluster_id uuid not null,
  template_id uuid not null,
  name text not null,
  description text default '' not null,
  comment text default '' not null,
  status text default 'down' not null,
  host_id uuid,
  memory_bytes bigint not null,
  cpu_sockets integer default 1 not null,
  cpu_cores integer default 1 not null,
  cpu_threads integer default 1 not null,
  os_type text default 'other' not null,
  vm_type text default 'server' not null,
  started_at timestamptz,
  stopped_at timestamptz,
  stop_reason text default '' not null,
  attrs jsonb default '{}' not null,
  version bigint default 1 not null,
  created_at timestamptz default now() not null,
  constraint vm_pkey primary key (vm_id),
  constraint vm_status_check check (status in (
    'down', 'wait_for_launch', 'powering_up', 'up', 'paused', 'powering_down',
    'reboot_in_progress', 'migrating', 'saving_state', 'restoring_state', 'suspended',
    'image_locked', 'not_responding', 'unknown')),
  constraint vm_memory_bytes_check check (memory_bytes > 0),
  constraint vm_cpu_check check (cpu_sockets > 0 and cpu_cores > 0 and cpu_threads > 0),
  constraint vm_cluster_id_fkey foreign key (cluster_id) references cluster (cluster_id),
  constraint vm_host_id_fkey foreign key (host_id) references host (host_id)
);
create index vm_cluster_id_idx on vm (cluster_id);
create index vm_host_id_idx on vm (host_id) where host_id is not null;
create unique index vm_name_key on vm (lower(name));

-- Names stand beside ids: an event tells about things that may be gone.
create table event (
  event_id bigint generated always as identity,
  code integer not null,
  severity text default 'normal' not null,
  at timestamptz default clock_timestamp() not null,
  description text not null,
  correlation_id text default '' not null,
  origin text default 'engine_pg' not null,
  custom_id integer default -1 not null,
  user_name text default '' not null,
  command_id uuid,
  data_center_id uuid,
  data_center_name text,
  cluster_id uuid,
  cluster_name text,
  host_id uuid,
  host_name text,
  vm_id uuid,
  vm_name text,
  constraint event_pkey primary key (event_id),
  constraint event_severity_check check (severity in ('normal', 'warning', 'error', 'alert'))
);
create index event_at_idx on event (at);
create index event_correlation_id_idx on event (correlation_id) where correlation_id <> '';
"""

# The cluster's branch may have made the newer one already (0009).
FEED = """
create table if not exists change (
  change_id bigint generated always as identity (cache 1) primary key,
  xid xid8 not null default pg_current_xact_id(),
  topic text not null,
  key text not null,
  op text not null check (op in ('insert', 'update', 'delete')),
  at timestamptz not null default clock_timestamp()
) with (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000);
create index if not exists change_xid_idx on change (xid);
comment on table change is
  'What changed, in the writer''s own transaction. Its ids become visible out of order.';

create function change_append() returns trigger language plpgsql as $$
begin
  insert into change (topic, key, op)
  values (tg_table_name, to_jsonb(coalesce(new, old)) ->> tg_argv[0], lower(tg_op));
  return null;
end $$;

create function version_rise() returns trigger language plpgsql as $$
-- Whoever writes, psql included: optimistic checks rest on this.
begin
  new.version := old.version + 1;
  return new;
end $$;
"""

TABLE_NAMES = ("data_center", "cluster", "host", "vm", "event", "host_statistics")
VERSIONED = ("data_center", "cluster", "host", "vm")

DOWN = """
drop table event, vm, host_statistics, host, cluster, data_center;
drop function version_rise, change_append;
do $$ begin
  if to_regproc('feed_append') is null then  -- else it is the newer one, of 0009
    drop table change;
  end if;
end $$;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(FEED)
    for name in TABLE_NAMES:
        key = "host_id" if name == "host_statistics" else f"{name}_id"
        op.execute(
            f"create trigger {name}_change after insert or update or delete on {name} "
            f"for each row execute function change_append('{key}')"
        )
    for name in VERSIONED:
        op.execute(
            f"create trigger {name}_version before update on {name} "
            "for each row execute function version_rise()"
        )


def downgrade() -> None:
    op.execute(DOWN)

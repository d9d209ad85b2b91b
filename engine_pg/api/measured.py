"""What Prometheus is told of coordination: the cluster by one query, the node by measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from engine_pg.api.metrics import Labels, Sample, exposition
from engine_pg.cluster.measures import ByKind, Distribution, Measures, Standing
from engine_pg.db.tx import Record

CLUSTER: Final = """
with living as (
  select case when clock_timestamp() > renewed_at + ttl * 0.9 then 'paused'
              when draining then 'draining' else 'live' end as state
    from member where state = 'live'),
led as (
  select l.name, l.term, coalesce(m.state = 'live', false) as held
    from leader l left join member m using (member_id))
select 'engine_members' as name, state as label,
       (select count(*) from living where living.state = s.state)::float8 as value
  from unnest('{live,paused,draining}'::text[]) as s(state)
union all select 'engine_leaders', name, held::integer from led
union all select 'engine_leader_term', name, term from led
union all select 'engine_exactly_one_leader', null, coalesce(bool_and(held), true)::integer from led
union all select 'engine_locks', kind, count(*) from lock_grant group by kind
union all select 'engine_lock_tickets', kind, count(*) from lock_ticket group by kind
union all select 'engine_lock_waiters', null, count(distinct ticket) from lock_ticket
union all select 'engine_lock_oldest_wait_seconds', null,
       coalesce(extract(epoch from clock_timestamp() - min(waiting_since)), 0) from lock_ticket
union all select 'engine_epoch', null, coalesce(max(epoch_id), 0) from cluster_epoch
union all select 'engine_feed_changes', null,
       coalesce(max(change_id) - min(change_id) + 1, 0) from change
union all select 'engine_feed_readers', null, count(*) from feed_reader
           where read_at > clock_timestamp() - interval '1 minute'
union all select 'engine_feed_oldest_writer_seconds', null,
       coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)
  from pg_stat_activity where backend_xid is not null
union all select 'engine_commands', state, count(*) from command
           where ended_at is null or ended_at > now() - interval '1 hour' group by state
union all select 'engine_schedules',
       case when problem <> '' then 'set_aside' when paused then 'paused' else 'active' end,
       count(*) from schedule group by 2
union all select 'engine_schedule_overdue_seconds', null,
       coalesce(max(extract(epoch from clock_timestamp() - fires_at)), 0)
  from schedule where fires_at < clock_timestamp() and not paused and problem = ''
union all select 'engine_hosts', status, count(*) from host group by status
union all select 'engine_vms', status, count(*) from vm group by status
"""
GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "engine_members": ("state", "Members that were not ended."),
    "engine_leaders": ("name", "Whether a live member leads a name (1) or none (0)."),
    "engine_leader_term": ("name", "The term of a leadership; it rises with every new leader."),
    "engine_exactly_one_leader": ("", "Whether every declared name has its one live leader."),
    "engine_locks": ("kind", "Locks held."),
    "engine_lock_tickets": ("kind", "Keys that somebody waits for, one for each who waits."),
    "engine_lock_waiters": ("", "Requests that wait for locks."),
    "engine_lock_oldest_wait_seconds": ("", "How long the oldest request has waited."),
    "engine_epoch": ("", "The epoch: it rises with every restart and failover of PostgreSQL."),
    "engine_commands": ("state", "Commands that are open or ended within the last hour."),
    "engine_schedules": ("state", "Schedules; set aside: they break a rule and do not fire."),
    "engine_schedule_overdue_seconds": (
        "",
        "For how long the tick that has waited most could have been fired.",
    ),
    "engine_hosts": ("status", "Hosts."),
    "engine_vms": ("status", "VMs."),
    "engine_feed_changes": ("", "Changes that are kept in the feed, at most."),
    "engine_feed_readers": ("", "Feeds that somebody read within the last minute."),
    "engine_feed_oldest_writer_seconds": (
        "",
        "How long the oldest writing transaction is open: until it ends, reads look back so far.",
    ),
    "engine_lock_table_used": ("", "Locks in the whole server's table of locks."),
    "engine_lock_table_capacity": ("", "Locks that the table has room for at least."),
}
NODE: Final[Mapping[str, tuple[str, str]]] = {
    "engine_node_batch_size": ("histogram", "Operations in each batch of the lock session."),
    "engine_node_batch_seconds": ("histogram", "Time from a batch to its answer."),
    "engine_node_heartbeat_seconds": ("histogram", "Time from a renewal to its acknowledgement."),
    "engine_node_pause_seconds": ("histogram", "How long pauses past trusted_until lasted."),
    "engine_node_lock_wait_seconds": ("histogram", "Time from a request to its grant."),
    "engine_node_lock_hold_seconds": ("histogram", "How long locks were held."),
    "engine_node_lock_refusals_total": ("counter", "Requests for locks that were refused."),
    "engine_node_resumes_total": ("counter", "Times that the lock session was resumed."),
    "engine_node_doorbell_deaf_total": ("counter", "Probes of the doorbell that were not heard."),
    "engine_node_endings_total": (
        "counter",
        "Members ended: others by this node, its own by others, and those that left.",
    ),
    "engine_node_trusted_seconds": ("gauge", "How much longer the member may act; below 0: pause."),
    "engine_node_locks_held": ("gauge", "Locks that this node holds."),
    "engine_node_locks_limit": ("gauge", "Locks that this node may hold."),
    "engine_node_streams": ("gauge", "Streams of changes that this node serves."),
    "engine_node_locks_waiting": ("gauge", "Requests of this node that wait for locks."),
}


def of_cluster(records: Sequence[Record]) -> Iterable[str]:
    """Yield the exposition of what was asked of the database."""
    for name, (label, about) in GAUGES.items():
        samples = [
            Sample(name, ((label, record["label"]),) if label else (), record["value"])
            for record in records
            if record["name"] == name
        ]
        yield from exposition("gauge", name, about, samples)


def of_node(measures: Measures, standing: Standing | None, *, streams: int = 0) -> Iterable[str]:
    """Yield the exposition of what this node measured; some of it only while it is a member."""
    samples = {
        "engine_node_batch_size": _spread("engine_node_batch_size", measures.batch_sizes),
        "engine_node_batch_seconds": _spread("engine_node_batch_seconds", measures.batch_s),
        "engine_node_heartbeat_seconds": _spread(
            "engine_node_heartbeat_seconds", measures.renewal_s
        ),
        "engine_node_pause_seconds": _spread("engine_node_pause_seconds", measures.pause_s),
        "engine_node_lock_wait_seconds": _by_kind("engine_node_lock_wait_seconds", measures.wait_s),
        "engine_node_lock_hold_seconds": _by_kind("engine_node_lock_hold_seconds", measures.hold_s),
        "engine_node_lock_refusals_total": _counted(
            "engine_node_lock_refusals_total", "kind", measures.refusals
        ),
        "engine_node_streams": [Sample("engine_node_streams", (), streams)],
        "engine_node_resumes_total": [Sample("engine_node_resumes_total", (), measures.resumes)],
        "engine_node_doorbell_deaf_total": [
            Sample("engine_node_doorbell_deaf_total", (), measures.deafnesses)
        ],
        "engine_node_endings_total": _counted(
            "engine_node_endings_total", "how", {"other": 0, "own": 0, "left": 0} | measures.endings
        ),
    }
    if standing is not None:
        figures = {
            "engine_node_trusted_seconds": standing.trusted_s,
            "engine_node_locks_held": standing.locks_held,
            "engine_node_locks_limit": standing.locks_limit,
            "engine_node_locks_waiting": standing.waiting,
        }
        samples |= {name: [Sample(name, (), value)] for name, value in figures.items()}
    for name, (kind, about) in NODE.items():
        yield from exposition(kind, name, about, samples.get(name, ()))


def _spread(name: str, spread: Distribution, labels: Labels = ()) -> list[Sample]:
    samples: list[Sample] = []
    below = 0
    for bound, count in zip(spread.bounds, spread.counts, strict=False):
        below += count
        samples.append(Sample(f"{name}_bucket", (*labels, ("le", f"{bound:g}")), below))
    return [
        *samples,
        Sample(f"{name}_bucket", (*labels, ("le", "+Inf")), spread.count),
        Sample(f"{name}_sum", labels, spread.total),
        Sample(f"{name}_count", labels, spread.count),
    ]


def _by_kind(name: str, spreads: ByKind) -> list[Sample]:
    return [
        sample
        for kind, spread in sorted(spreads.kinds.items())
        for sample in _spread(name, spread, (("kind", kind),))
    ]


def _counted(name: str, label: str, counts: Mapping[str, int]) -> list[Sample]:
    return [Sample(name, ((label, key),), count) for key, count in sorted(counts.items())]

"""A large inventory in a database, and somebody who may read it."""

from __future__ import annotations

from typing import Any, Final

from engine_pg.api.accounts import tokens, users
from engine_pg.db.database import Database

HOSTS: Final = 1_000
VMS: Final = 10_000
FILL: Final = (
    "insert into data_center (data_center_id, name) values (gen_random_uuid(), 'measured')",
    """
    insert into cluster (cluster_id, data_center_id, name)
    select gen_random_uuid(), data_center_id, 'cluster-' || n
      from data_center, generate_series(1, 10) n
    """,
    """
    with c as (select cluster_id, row_number() over () as n from cluster)
    insert into host (host_id, cluster_id, name, address, status, cpu_sockets, cpu_cores,
                      cpu_threads, memory_bytes, hardware_id)
    select gen_random_uuid(), c.cluster_id, 'host-' || h,
           '127.1.' || h / 250 || '.' || h %% 250 + 1, 'up',
           2, 16, 2, 1::bigint << 38, gen_random_uuid()
      from generate_series(1, %(hosts)s) h join c on c.n = h %% 10 + 1
    """,
    """
    insert into host_statistics (host_id, cpu_percent, memory_free_bytes, vm_active, vm_count)
    select host_id, 12.5, 1::bigint << 37, 10, 10 from host
    """,
    """
    with h as (select host_id, cluster_id, row_number() over () as n from host)
    insert into vm (vm_id, cluster_id, template_id, name, description, status, host_id,
                    memory_bytes, attrs)
    select gen_random_uuid(), h.cluster_id, '00000000-0000-0000-0000-000000000000', 'vm-' || v,
           'One of many VMs, number ' || v, 'up', h.host_id, 1::bigint << 32,
           '{"delete_protected": true, "cpu/topology/threads": 1}'
      from generate_series(1, %(vms)s) v join h on h.n = v %% %(hosts)s + 1
    """,
)
_USER: Final = "measured@internal"


async def furnish(db: Database) -> str:
    """Fill an empty database; return a token that reads it."""
    params: dict[str, Any] = {"hosts": HOSTS, "vms": VMS}
    async with db.write() as tx:
        for statement in FILL:
            await tx.run(statement, params)
        await users.add(tx, _USER, "nobody logs in with a password")
        user = await users.find(tx, _USER)
        assert user is not None
        token, _ = await tokens.issue(tx, user.user_id, 3600.0)
    async with db.write() as tx:
        await tx.run("select feed_trim('0', '0', 0, '0', 1000000)")
    return token

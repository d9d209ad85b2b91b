"""A search in memory finds what PostgreSQL finds on the same rows, in the same order."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from oracle import inventory as oracle
from oracle.conditions import listing as oracle_listing
from psycopg.rows import dict_row
from sqlalchemy import select

from engine_pg.api.search import inventory
from engine_pg.api.search.conditions import listing
from engine_pg.db.database import Database
from engine_pg.db.tx import compiled
from engine_pg.errors import Invalid
from engine_pg.replica.copying import copied
from engine_pg.replica.inventory import INVENTORY

PAIRS = {
    "data_center_id": (inventory.DATA_CENTERS, oracle.DATA_CENTERS),
    "cluster_id": (inventory.CLUSTERS, oracle.CLUSTERS),
    "host_id": (inventory.HOSTS, oracle.HOSTS),
    "vm_id": (inventory.VMS, oracle.VMS),
    "template_id": (inventory.TEMPLATES, oracle.TEMPLATES),
    "event_id": (inventory.EVENTS, oracle.EVENTS),
}
DAY = datetime(2026, 3, 1, tzinfo=UTC)
TEXTS = ["", "a", "A b", "web*1", "x%y_z", "back\\slash", "é Ü", "vm-1", "no name", "a.b", "a_b"]
STATUSES = ["down", "up", "powering_up", "paused", "unknown"]


def populate(connection, seed: int = 7) -> None:  # noqa: C901  # a list of rows, line by line
    """Fill the tables with a little of everything: the same texts and numbers again and again."""
    dice = random.Random(seed)

    def id_() -> UUID:
        return UUID(int=dice.getrandbits(128))

    def put(table: str, **values) -> None:
        names = ", ".join(values)
        marks = ", ".join(f"%({name})s" for name in values)
        query = f"insert into {table} ({names}) values ({marks})"  # noqa: S608  # names of ours
        connection.execute(query, values)

    def told() -> dict[str, str]:
        return {"description": dice.choice(TEXTS), "comment": dice.choice(TEXTS)}

    centers, clusters, hosts, vms = ([id_() for _ in range(n)] for n in (3, 5, 8, 40))
    for number, each in enumerate(centers):
        put("data_center", data_center_id=each, name=f"DC{number}", **told())
    for number, each in enumerate(clusters):
        put("cluster", cluster_id=each, data_center_id=dice.choice(centers[:2]),
            name=f"{dice.choice('cC')}lus-{number}",
            cpu_architecture=dice.choice(["x86_64", "s390x"]), **told())  # fmt: skip
    for number, each in enumerate(hosts):
        put("host", host_id=each, cluster_id=dice.choice(clusters), name=f"h{number}",
            address=f"10.0.0.{number}", status=dice.choice(["up", "maintenance", "error"]),
            memory_bytes=dice.choice([0, 1 << 30, 1 << 34]), cpu_sockets=dice.randrange(3),
            cpu_cores=dice.randrange(5), **told())  # fmt: skip
    for number, each in enumerate(vms):
        name = f"{dice.choice(['VM', 'vm', 'web', 'a_b', 'é', 'x%y'])}-{number}"
        put("vm", vm_id=each, cluster_id=dice.choice(clusters), name=name,
            template_id=dice.choice([UUID(int=0), UUID(int=0), UUID(int=5)]),
            status=dice.choice(STATUSES), host_id=dice.choice([None, *hosts[:3]]),
            memory_bytes=dice.choice([1 << 20, 1 << 30, 3 << 30]),
            os_type=dice.choice(["other", "rhel_9x64"]), vm_type=dice.choice(["server", "desktop"]),
            created_at=DAY + timedelta(hours=12 * dice.randrange(6)), **told())  # fmt: skip
    for _ in range(80):
        host, vm = dice.choice([None, *hosts]), dice.choice([None, *vms, id_()])
        put("event", code=dice.choice([32, 33, 9701]), description=dice.choice(TEXTS),
            severity=dice.choice(["normal", "warning", "error"]),
            at=DAY + timedelta(hours=6 * dice.randrange(12)),
            correlation_id=dice.choice(["", "c-1", "C-1"]), user_name=dice.choice(["", "admin@x"]),
            host_id=host, host_name=None if host is None else dice.choice(TEXTS),
            vm_id=vm, vm_name=None if vm is None else dice.choice(TEXTS))  # fmt: skip


@pytest.fixture(scope="module")
def both(database_url):
    """Yield a connection to a populated database, and a view of it."""

    async def viewed():
        async with Database(database_url) as db, db.read() as tx:
            return await copied(tx, INVENTORY, 1)

    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        populate(connection)
        yield connection, asyncio.run(viewed())


def in_memory(view, key, text, limit, exact_case):
    found = listing(PAIRS[key][0], text, exact_case=exact_case, limit=limit, bound=60)
    return [getattr(row, key) for row in asyncio.run(found.of(view))]


def in_database(connection, key, text, limit, exact_case):
    searchable = PAIRS[key][1]
    found = oracle_listing(searchable, text, exact_case=exact_case, limit=limit, bound=60)
    query = select(searchable.table).order_by(*found.order, searchable.table.c[key])
    query = query.limit(found.limit).offset(found.offset)
    if found.where is not None:
        query = query.where(found.where)
    return [row[key] for row in connection.execute(*compiled(query, None)).fetchall()]


def outcome(find, *given):
    try:
        return find(*given)
    except Invalid as error:
        return str(error)


FIELDS = sorted(
    {name for pair in PAIRS.values() for name in pair[0].fields}
    | {f"{owner}.{name}" for pair in PAIRS.values() for owner, related in pair[0].related.items()
       for name in related.searchable().fields}
    | {"host", "vm", "unheard.of", "host.vm.name"}
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([*TEXTS, *STATUSES, "PoweringUp", "*", "v*", "*1*", "*-*1", "h1", "DC0", "dc*",
                     "1", "0", "-3", "1024", "99999999999999", "32", "2026-03-02", "03/02/2026",
                     "2026-03-02T05:00", "today", "yesterday", str(UUID(int=0)), "0000*", "1e5"]),
    st.text(st.sampled_from("aAvmé*-_%\\. 10"), max_size=5),
)  # fmt: skip
OPERATORS = st.sampled_from(["=", "=", "=", "!=", "<", "<=", ">", ">="])
COMPARISONS = st.builds(
    lambda f, o, v: f'{f} {o} "{v}"', st.sampled_from(FIELDS), OPERATORS, VALUES
)
CONDITIONS = st.recursive(
    st.one_of(COMPARISONS, VALUES.map(lambda value: f'"{value}"')),
    lambda inner: st.builds(
        lambda a, how, b: f"({a} {how} {b})", inner, st.sampled_from(["and", "or", ""]), inner
    ),
    max_leaves=4,
)
TAILS = st.builds(
    lambda sort, way, page: f"{sort and f'sortby {sort} {way}'} {page and f'page {page}'}",
    st.sampled_from(["", *FIELDS]),
    st.sampled_from(["", "asc", "desc"]),
    st.sampled_from([0, 1, 2, 3]),
)
WHERE = st.one_of(st.just(""), CONDITIONS)


@pytest.mark.parametrize("key", PAIRS)
@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    where=WHERE, tail=TAILS, limit=st.sampled_from([None, 0, 3, 7, 500]), exact_case=st.booleans()
)
@example(where='name = "vm-1*"', tail="sortby status desc page 2", limit=3, exact_case=False)
@example(where='description = "a*a"', tail="", limit=None, exact_case=True)
@example(where="creation_date = 2026-03-02", tail="", limit=None, exact_case=False)
@example(where="time != 2026-03-02", tail="", limit=None, exact_case=False)
@example(where='vm.name != "x" or host.name = "h*"', tail="", limit=None, exact_case=True)
def test_memory_and_database_agree(both, key, where, tail, limit, exact_case):
    connection, view = both
    given = (key, f"{where} {tail}", limit, exact_case)
    assert outcome(in_memory, view, *given) == outcome(in_database, connection, *given)


@pytest.mark.parametrize("key", PAIRS)
def test_the_comparison_is_not_empty(both, key):
    connection, view = both
    assert in_memory(view, key, "", None, False) == in_database(connection, key, "", None, False)
    assert in_memory(view, key, "", None, False)

"""One connection string for each host that a database URL names; which timeline a process obeys."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from engine_pg.db.hosts import HostConnection, Timelines, each_host, timelines_of
from engine_pg.db.urls import schema_url


def places(url: str) -> list[tuple[object, object]]:
    found = [conninfo_to_dict(each) for each in each_host(conninfo_to_dict(url))]
    return [(each.get("host") or each.get("hostaddr"), each.get("port")) for each in found]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u@a/d", [("a", None)]),
        ("postgresql://u@a:1,b:2/d", [("a", "1"), ("b", "2")]),
        ("host=a,b port=7", [("a", "7"), ("b", "7")]),
        ("hostaddr=::1,127.0.0.1 port=1,2", [("::1", "1"), ("127.0.0.1", "2")]),
        ("dbname=d", [(None, None)]),
        ("host=/run/postgresql", [("/run/postgresql", None)]),
    ],
)
def test_each_host_is_asked_by_itself(url, expected):
    assert places(url) == expected


def test_what_the_url_says_besides_goes_to_every_host():
    strings = each_host(conninfo_to_dict("postgresql://u:w@a,b/d?sslmode=require"))
    for each in map(conninfo_to_dict, strings):
        assert (each["user"], each["password"], each["sslmode"]) == ("u", "w", "require")


class Seen(HostConnection):
    """A connection that was never opened: what `Timelines` looks at."""

    def __init__(self, system: int, timeline: int) -> None:
        self.system, self.timeline = system, timeline

    def __del__(self) -> None:
        pass

    def fileno(self) -> int:
        raise psycopg.OperationalError("never opened")


def test_an_older_timeline_of_the_same_system_is_refused_and_of_another_is_not():
    timelines = Timelines()
    timelines.admit(Seen(1, 2))
    with pytest.raises(psycopg.OperationalError, match="old primary"):
        timelines.admit(Seen(1, 1))
    timelines.admit(Seen(1, 2))
    timelines.admit(Seen(7, 1))


def test_all_pools_of_a_process_share_what_it_knows_of_the_same_hosts():
    url = "postgresql://u@a:1,b:2/d"
    one, other = (conninfo_to_dict(each) for each in (url, schema_url(url, "engine_pg")))
    assert timelines_of(one | {"application_name": "x"}) is timelines_of(other)
    assert timelines_of(one) is not timelines_of(conninfo_to_dict("postgresql://u@a:1,b:3/d"))

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from engine_pg.cli.view import render

STACK = SimpleNamespace(
    processes={
        name: SimpleNamespace(state=state, pid=pid)
        for name, state, pid in [
            ("hosts", "running", 101),
            ("node-1", "running", 102),
            ("node-2", "pausing", None),
        ]
    },
    embedded=SimpleNamespace(port=lambda: 5432),
    formation=None,
    urls=["http://127.0.0.1:8080"],
    state=SimpleNamespace(password_file=Path("/state/admin-password")),
)


def member(node: str, state: str, **more) -> dict:
    numbers = {"ttl_s": 5.0, "age_s": 0.5, "leaderships": 7, "commands": 2}
    return {"node": node, "state": state} | numbers | more


STATUS = {
    "nodes": [member("node-1", "live"), member("node-2", "live", age_s=9.0)],
    "leaders": [
        {"name": "adoption", "node": "node-1", "term": 3},
        {"name": "retention", "node": None, "term": 3},
        *({"name": f"monitor/{n:02}", "node": f"node-{n % 2 + 1}", "term": 1} for n in range(8)),
    ],
    "locks": [
        {
            "key": "vm:01234567-89ab",
            "mode": "exclusive",
            "token": (5 << 40) + 17,
            "node": None,
            "command": "Launching VM a",
            "age_s": 1.5,
        }
    ],
    "hosts": [{"name": "host-1", "status": "up", "vms": 3}],
    "vms": {"up": 3},
    "commands": {"running": 1, "succeeded": 8},
    "events": [
        {"at": "2026-11-23T03:00:01.500Z", "severity": "normal", "description": "VM a was started."}
    ],
}


@pytest.fixture
def show():
    def shown(status, said=()) -> list[str]:
        console = Console(width=120, height=40, file=io.StringIO())
        console.print(render(STACK, status, said, height=40))
        return console.file.getvalue().splitlines()

    return shown


def line_of(lines: list[str], text: str) -> str:
    found = [line for line in lines if text in line]
    assert found, f"nothing shows {text}"
    return " ".join(found[0].split())


def test_each_node_stands_with_its_process_and_member(show):
    lines = show(STATUS)
    assert "node-1 running 102 live ━━━━━━ 7 2" in line_of(lines, "node-1")
    assert "node-2 pausing live" in line_of(lines, "node-2")


def test_the_old_life_of_a_restarted_node_is_shown_until_it_is_ended(show):
    nodes = [member("node-1", "live", age_s=4.0), member("node-1", "live", leaderships=0)]
    assert "before live" in line_of(show(STATUS | {"nodes": nodes}), "before")
    nodes[0]["state"] = "ended"
    assert not [line for line in show(STATUS | {"nodes": nodes}) if "before" in line]


def test_a_lock_tells_its_epoch_and_that_nobody_holds_it(show):
    line = line_of(show(STATUS), "vm 01234567")
    assert "vm 01234567 excl 5.17 nobody 1.5 s Launching VM a" in line


def test_partitions_are_counted_by_node_and_vacancies_named(show):
    lines = show(STATUS)
    assert "monitor 4 node-1 4 node-2" in line_of(lines, "monitor")
    assert "retention vacant term 3" in line_of(lines, "retention")


def test_what_befell_processes_stands_beside_what_the_nodes_tell(show):
    lines = show(STATUS, ["node-2 died (SIGKILL)"])
    assert "node-2 died (SIGKILL)" in line_of(lines, "▸")
    assert "03:00:01 VM a was started." in line_of(lines, "03:00:01")


def test_silence_is_said(show):
    assert "no node answers" in line_of(show(None), "engine-pg")


def test_what_nobody_can_tell_without_the_database_is_said(show):
    nodes = [member("node-1", "live", age_s=None)]
    lines = show(STATUS | {"stale_s": 3.2, "nodes": nodes, "locks": None})
    assert "the database is away: 3 s old" in line_of(lines, "engine-pg")
    assert "live unknown 7 2" in line_of(lines, "node-1")
    assert "nobody can tell" in line_of(lines, "nobody")

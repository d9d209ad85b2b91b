"""What is told of a formation, and what is made of sessions that wait for a standby."""

import asyncio
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from engine_pg.errors import DatabaseAway
from engine_pg.formation import shown
from engine_pg.formation.commits import Hang, hang_among, pairs, reason
from engine_pg.formation.kept import FormationRow, signature
from engine_pg.formation.state import FormationState, NodeState, assembled
from engine_pg.formation.switching import objections_to
from engine_pg.singletons.formation_events import (
    MONITOR_AWAY,
    MONITOR_BACK,
    PRIMARY_CHANGED,
    PROTECTED,
    UNPROTECTED,
    changes,
    was_unalarmed,
)
from engine_pg.singletons.formation_watch import Look

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SELF = {
    "in_recovery": False,
    "read_only": False,
    "standby_names": "ANY 1 (pgautofailover_standby_2)",
    "waits": True,
    "sees_standbys": False,
    "standbys": {},
}


def told(name, number, **changes):
    return {
        "name": name,
        "number": number,
        "host": name,
        "port": 5432,
        "state": "secondary",
        "goal": "secondary",
        "health": 1,
        "timeline": 1,
        "lsn": "0/3000000",
        "running": True,
        "sync": "",
        "priority": 100,
        "quorum": True,
        "silent_s": 0.4,
        "wanted_standbys": 0,
    } | changes


PRIMARY = told("node1", 1, state="primary", goal="primary", sync="quorum", lsn="1/10")
STANDBY = told("node2", 2, lsn="0/FFFFFFF0")


def state_of(rows, own=SELF, head="node1"):
    addresses = {row["name"]: f"{row['host']}:{row['port']}" for row in rows}
    return assembled(rows, {head: own}, addresses, unheard="")


WHOLE = state_of([PRIMARY, STANDBY])


def row_of(state: FormationState, **changes) -> FormationRow:
    row = FormationRow(
        name="default",
        monitor=state.monitor,
        synchronous=bool(state.synchronous),
        standby_names=state.standby_names,
        primary_node=state.primary.name if state.primary else None,
        nodes=[asdict(node) for node in state.nodes],
        looked_at=NOW,
        monitor_seen_at=NOW,
    )
    return replace(row, **changes)


def test_who_may_not_see_standbys_believes_the_reports_to_the_monitor():
    assert WHOLE.primary.name == "node1"
    assert WHOLE.synchronous
    assert (WHOLE.nodes[1].sync, WHOLE.nodes[1].lag_bytes) == ("quorum", 32)
    assert WHOLE.warnings == ()


def test_a_standby_that_the_primary_does_not_hear_is_not_synchronous():
    state = state_of([PRIMARY | {"sync": ""}, STANDBY])
    assert state.nodes[1].sync == ""
    assert state.warnings == ("no standby is synchronous: commits wait until one is",)


@pytest.mark.parametrize("own", [{"standby_names": ""}, {"standby_names": " "}, {"waits": False}])
def test_a_commit_that_waits_for_nobody_is_not_synchronous(own):
    assert not state_of([PRIMARY, STANDBY], SELF | own).synchronous


def codes(before, after):
    return [event.code for event in changes(before, after)]


ALONE = state_of(
    [
        PRIMARY | {"state": "demoted", "goal": "catchingup"},
        STANDBY | {"state": "wait_primary", "goal": "wait_primary", "timeline": 2},
    ],
    SELF | {"standby_names": ""},
    "node2",
)


def test_each_change_is_told_and_no_change_is_not():
    away = replace(WHOLE, monitor="away")
    assert codes(row_of(WHOLE), WHOLE) == []
    assert codes(row_of(WHOLE), ALONE) == [PRIMARY_CHANGED, UNPROTECTED]
    assert codes(row_of(ALONE), WHOLE) == [PRIMARY_CHANGED, PROTECTED]
    assert codes(row_of(WHOLE), away) == [MONITOR_AWAY]
    assert codes(row_of(away), away) == []
    assert codes(row_of(away), WHOLE) == [MONITOR_BACK]
    [first, _] = changes(row_of(WHOLE), ALONE)
    assert "node2 now, on timeline 2; it was node1" in first.description


def test_a_planned_switchover_alarms_nobody_unless_the_standby_stays_away_after_it():
    during = list(changes(row_of(WHOLE), ALONE, planned=True))
    assert [(event.code, event.severity) for event in during] == [
        (PRIMARY_CHANGED, "normal"),
        (UNPROTECTED, "normal"),
    ]
    assert all("planned switchover" in event.description for event in during)
    assert list(changes(row_of(ALONE), ALONE, planned=True, unalarmed=True)) == []
    [after] = changes(row_of(ALONE), ALONE, unalarmed=True)
    assert (after.code, after.severity) == (UNPROTECTED, "alert")
    assert was_unalarmed({"code": UNPROTECTED, "severity": "normal"})
    assert not was_unalarmed({"code": UNPROTECTED, "severity": "alert"})
    assert not was_unalarmed({"code": PROTECTED, "severity": "normal"})
    assert not was_unalarmed(None)


THIRD = told("node3", 3, lsn="1/0")
NAMES_OF_TWO = {"standby_names": "ANY 1 (pgautofailover_standby_2, pgautofailover_standby_3)"}


def three(*changed, head="node1"):
    """Return a formation of three, with rows changed by name."""
    rows = [row | dict(changed).get(row["name"], {}) for row in (PRIMARY, STANDBY, THIRD)]
    return state_of(rows, SELF | NAMES_OF_TWO, head)


def test_three_nodes_are_whole_when_both_standbys_are_heard():
    state = three()
    assert (state.warnings, state.settled) == ((), True)
    assert [node.sync for node in state.nodes] == ["", "quorum", "quorum"]
    assert list(objections_to(state)) == []


def test_of_three_nodes_the_loss_of_a_standby_alarms_nobody_and_forbids_a_switchover():
    away = three(("node3", {"health": 0, "goal": "catchingup", "silent_s": 9.0}))
    assert codes(row_of(three()), away) == []
    assert away.synchronous
    assert not any("one server" in warning for warning in away.warnings)
    said = list(objections_to(away))
    assert "node3 has not reported for 9 s" in said
    assert "node3 fails its checks" in said


def test_while_three_nodes_elect_there_is_no_primary_and_nothing_is_told_of_one():
    report = {"state": "report_lsn", "goal": "report_lsn", "sync": ""}
    rows = [PRIMARY | {"state": "draining", "goal": "draining"}, STANDBY | report, THIRD | report]
    electing = assembled(rows, {}, {row["name"]: "" for row in rows}, unheard="")
    assert electing.primary is None
    assert "no node takes writes: a failover is under way" in electing.warnings
    assert PRIMARY_CHANGED not in codes(row_of(three()), electing)
    elected = three(
        ("node1", {"state": "demoted", "goal": "catchingup", "sync": ""}),
        ("node3", {"state": "primary", "goal": "primary", "sync": "quorum", "timeline": 2}),
        head="node3",
    )
    assert elected.primary.name == "node3"
    assert codes(row_of(three()), elected) == [PRIMARY_CHANGED]


def test_positions_and_seconds_alone_are_no_change_of_state():
    moved = state_of([PRIMARY | {"lsn": "2/0", "silent_s": 1.3}, STANDBY])
    assert signature(moved) == signature(WHOLE)
    assert signature(state_of([PRIMARY | {"silent_s": 9.0}, STANDBY])) != signature(WHOLE)
    assert signature(state_of([PRIMARY, STANDBY | {"health": 0}])) != signature(WHOLE)


def waiting(pid, waited_s, began=0):
    return {"pid": pid, "waited_s": waited_s, "began_at": NOW + timedelta(seconds=began)}


def test_sessions_hang_that_have_waited_long_and_were_seen_waiting_before():
    rows = [waiting(1, 6.0), waiting(2, 5.5), waiting(3, 90.0, began=1)]
    seen = pairs(rows[:2])
    hang = hang_among(rows, seen, 5.0)
    assert (hang.sessions, hang.waited_s) == (2, 6.0)
    assert hang_among(rows, frozenset(), 5.0) is None
    assert hang_among(rows[1:], seen, 6.0) is None
    assert hang_among([waiting(1, 6.0, began=2)], seen, 5.0) is None


def test_a_cut_link_is_told_from_a_failover_and_from_a_monitor_that_is_away():
    cut = reason([PRIMARY, STANDBY])
    assert "link from node1 to node2" in cut
    assert "`pg_autoctl enable maintenance` on node2" in cut
    assert "start it" in reason(None)
    assert "node2 is catchingup" in reason([PRIMARY, STANDBY | {"state": "catchingup"}])
    assert "node2 is secondary" in reason([PRIMARY, STANDBY | {"health": 0}])


def test_the_document_says_how_old_it_is_and_what_hangs():
    now = NOW + timedelta(seconds=7)
    hang = Hang(NOW, 12.3, 4, "look there")
    document = shown.document(row_of(WHOLE), now, hang)
    assert (document["age_s"], document["monitor_age_s"]) == (7.0, 7.0)
    assert document["hang"]["sessions"] == 4
    assert document["warnings"] == ["commits hang, 4 for up to 12 s: look there"]
    assert shown.document(None, now, None).keys() == document.keys()


def test_what_a_later_release_writes_of_a_node_is_left_out():
    row = row_of(
        WHOLE,
        nodes=[
            {"name": "n", "address": "", "state": "", "goal": "", "access": "", "colour": "red"}
        ],
    )
    assert row.node_states() == (NodeState("n", "", "", "", ""),)


class Deaf:
    """A line on which nobody answers, or somebody does."""

    def __init__(self) -> None:
        self.answers = False

    async def ask(self, _query):
        if not self.answers:
            raise DatabaseAway("nobody answers")
        return [PRIMARY, STANDBY]


def test_a_monitor_is_away_after_three_looks_in_vain():
    async def story():
        line, look = Deaf(), Look(row_of(WHOLE))
        states = [look.seen(await look.ask(line), SELF) for _ in range(3)]
        assert [state.monitor for state in states] == ["up", "up", "away"]
        assert all(state.nodes == WHOLE.nodes for state in states)
        line.answers = True
        assert look.seen(await look.ask(line), SELF).monitor == "up"

    asyncio.run(story())

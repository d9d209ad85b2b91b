from dataclasses import replace

import pytest

from engine_pg.formation.state import FormationState, NodeState, warnings_of
from engine_pg.formation.switching import objections_to

PRIMARY = NodeState(
    "node1", "127.0.0.1:1", "primary", "primary", "read-write", healthy=True, silent_s=0.5
)
STANDBY = NodeState(
    "node2",
    "127.0.0.1:2",
    "secondary",
    "secondary",
    "read-only",
    healthy=True,
    sync="quorum",
    lag_bytes=0,
    silent_s=0.5,
)
WHOLE = FormationState("fast", "up", (PRIMARY, STANDBY))


def with_standby(**changes):
    return replace(WHOLE, nodes=(PRIMARY, replace(STANDBY, **changes)))


def told(state):
    return replace(state, warnings=tuple(warnings_of(state)))


def test_a_whole_formation_is_settled_warns_of_nothing_and_may_be_switched_over():
    assert WHOLE.settled
    assert WHOLE.primary == PRIMARY
    assert warnings_of(WHOLE) == []
    assert list(objections_to(told(WHOLE))) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sync": ""}, "no standby is synchronous"),
        ({"state": "catchingup"}, "node2 is on its way from catchingup to secondary"),
        ({"silent_s": 9.0}, "node2 has not reported for 9 s"),
        ({"access": "read-write"}, "node1 and node2 take writes"),
    ],
)
def test_whatever_is_not_well_is_said_and_stands_in_the_way_of_a_switchover(changes, said):
    state = told(with_standby(**changes))
    assert any(said in each for each in state.warnings)
    assert any(said in each for each in objections_to(state))


def test_a_primary_without_a_follower_is_not_settled():
    assert not with_standby(sync="").settled
    assert not with_standby(state="catchingup").settled


def test_two_writable_servers_are_no_primary():
    assert with_standby(access="read-write").primary is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"healthy": False}, "fails its checks"), ({"lag_bytes": 1 << 30}, "1024 MB behind")],
)
def test_a_standby_that_is_ill_or_behind_stands_in_the_way_of_a_switchover(changes, said):
    assert any(said in each for each in objections_to(told(with_standby(**changes))))


def test_without_its_monitor_it_says_that_nothing_fails_over():
    state = told(replace(WHOLE, monitor="away"))
    assert state.warnings == ("the monitor does not answer: writes go on, and nothing fails over",)
    assert list(objections_to(state)) == ["the monitor does not answer"]


def test_its_document_names_the_primary_and_has_no_secret():
    document = told(WHOLE).document()
    assert document["primary"] == "node1"
    assert document["settled"]
    assert {"profile", "monitor", "nodes", "warnings"} < set(document)

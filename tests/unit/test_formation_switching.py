"""A switchover asks once, whatever becomes of the answer, and says what it does not know."""

import asyncio
from dataclasses import replace

import pytest

from engine_pg.errors import Conflict, DatabaseAway, OutcomeUnknown, Unavailable
from engine_pg.formation import switching
from engine_pg.formation.state import FormationState, NodeState, warnings_of
from engine_pg.formation.switching import Switchover

OLD = NodeState("node1", "one:1", "primary", "primary", "read-write", healthy=True)
OTHER = NodeState("node2", "two:1", "secondary", "secondary", "", healthy=True, sync="quorum")
BEFORE = FormationState("", "up", (OLD, OTHER), synchronous=True)
UNDER_WAY = replace(BEFORE, nodes=(replace(OLD, goal="draining"), OTHER))
AFTER = replace(
    BEFORE,
    nodes=(
        replace(OLD, state="secondary", goal="secondary", access="", sync="quorum"),
        replace(OTHER, state="primary", goal="primary", access="read-write", sync=""),
    ),
)
AWAY = FormationState("", "away", ())


class Scripted:
    """A formation that looks as it is told to, one look after the other; the last one stays."""

    def __init__(self, *looks, refusal=None, unready=None) -> None:
        self.looks = list(looks)
        self.refusal = refusal
        self.unready = unready
        self.asked = 0

    async def look(self):
        state = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return replace(state, warnings=tuple(warnings_of(state)))

    async def checkpoint(self, _primary):
        if self.unready:
            raise self.unready

    async def perform(self):
        self.asked += 1
        if self.refusal:
            raise self.refusal

    async def successor(self, _old):
        return "node2"


def switched(ground, said=None):
    return asyncio.run(Switchover(ground).run((said if said is not None else []).append))


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(switching, "_BEGUN_S", 0.3)
    monkeypatch.setattr(switching, "_POLL_S", 0.01)


def test_it_ends_when_the_other_node_takes_writes_and_the_old_one_follows():
    done = switched(Scripted(BEFORE, UNDER_WAY, AFTER))
    assert (done.old, done.new) == ("node1", "node2")


def test_what_the_monitor_began_though_its_answer_was_lost_goes_on():
    ground = Scripted(BEFORE, AWAY, UNDER_WAY, AFTER, refusal=DatabaseAway("lost"))
    assert switched(ground).new == "node2"
    assert ground.asked == 1


def test_what_the_monitor_refused_did_not_begin():
    ground = Scripted(BEFORE, refusal=Conflict("not now"))
    with pytest.raises(Unavailable, match="did not begin: not now"):
        switched(ground)
    assert ground.asked == 1


def test_of_a_monitor_that_is_gone_it_is_not_known_whether_it_began():
    with pytest.raises(OutcomeUnknown, match="is not known"):
        switched(Scripted(BEFORE, AWAY, refusal=DatabaseAway("lost")))


def test_without_the_right_to_a_checkpoint_it_goes_on_and_says_so():
    said = []
    assert switched(Scripted(BEFORE, AFTER, unready=Unavailable("not allowed")), said).new
    assert any("no checkpoint" in line for line in said)


def test_a_node_that_is_alone_is_not_switched_over():
    with pytest.raises(Conflict, match="there is no other node"):
        switched(Scripted(replace(BEFORE, nodes=(OLD,))))


def test_nothing_is_asked_of_the_monitor_while_anything_is_under_way():
    ground = Scripted(UNDER_WAY)
    with pytest.raises(Conflict, match="node1 is on its way from primary to draining"):
        switched(ground)
    assert ground.asked == 0

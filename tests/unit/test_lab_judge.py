"""The judge of failovers finds what it is there for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lab import judge
from lab.askers import Asked
from lab.seen import Failover
from lab.stage import APART

DONE, HEALED = 100.0, 110.0


class Notes:
    """What clients noted, as a stage gives it."""

    def __init__(self, **entries):
        self._entries = {
            name.replace("_", " "): [{"what": what, **facts} for what, facts in some]
            for name, some in entries.items()
        }

    def noted(self, who, what, *, since=0.0):
        some = self._entries.get(who, [])
        return [entry for entry in some if entry["what"] == what and entry["at"] >= since]


def seen(*asked: Asked) -> Failover:
    return Failover("partition", "node1", done=DONE, healed=HEALED, asked=list(asked))


def contested(*, until=103.0, got=104.0, token=8):
    return Notes(
        far_holder=[
            ("got", {"at": 50.0, "token": 7}),
            ("trusts", {"at": 100.5, "until": until}),
            ("trusts", {"at": 112.0, "until": 114.0}),  # another life of it
        ],
        near_holder=[("got", {"at": got, "token": token})],
    )


def test_a_lock_that_was_inherited_in_order_is_no_violation():
    assert [*judge.overlaps(contested(), seen())] == []


@pytest.mark.parametrize(
    ("how", "said"), [({"until": 104.5}, "two had one lock"), ({"token": 7}, "under token 7")]
)
def test_two_that_believe_in_one_lock_are_found(how, said):
    [found] = judge.overlaps(contested(**how), seen())
    assert said in found


@pytest.mark.parametrize(
    ("who", "what"), [("far_writer", "acknowledged"), ("far_holder", "worked")]
)
@pytest.mark.parametrize(
    ("began", "at", "wrong"),
    [(99.9, 100.1, 0), (100.1, 100.2, 1), (100.1, 110.5, 0), (111.0, 111.1, 0)],
)
def test_a_commit_on_the_old_side_counts_when_it_began_after_the_cut(who, what, began, at, wrong):
    notes = Notes(**{who: [(what, {"began": began, "at": at})]})
    assert len([*judge.acknowledged_apart(notes, seen())]) == wrong


AGED = Asked(APART, "read", 103.0, 103.1, 200, 2.5)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([AGED], []),
        ([AGED, Asked(APART, "write", 104.0, 104.1, 503)], []),
        ([AGED, Asked(APART, "write", 104.0, 104.1, 201)], ["a write to node-1 got 201"]),
        ([AGED, Asked(APART, "write", 104.0, 114.0, 0)], ["got no answer"]),
        ([Asked(APART, "read", 103.0, 103.1, 200)], ["told its age"]),
        ([Asked("node-2", "read", 103.0, 103.1, 200, 2.5)], ["told its age"]),
    ],
)
def test_what_a_cut_off_node_tells_its_clients_is_looked_at(asked, said):
    found = [*judge.told_apart(seen(*asked))]
    assert len(found) == len(said)
    assert all(part in sentence for part, sentence in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("profile", "open_until", "wrong"), [("safe", 105.0, 1), ("safe", 103.0, 0), ("fast", 105.0, 0)]
)
def test_two_servers_that_take_writes_are_found_where_that_is_ruled_out(profile, open_until, wrong):
    found = Failover("partition", "node1", writable=104.0, open_until=open_until)
    assert len([*judge.both_open(profile, found)]) == wrong


def test_a_read_that_failed_is_found_on_any_node():
    asked = [AGED, Asked("node-2", "read", 1.0, 2.0, 503), Asked("node-2", "write", 1.0, 2.0, 503)]
    assert len([*judge.reads_failed(asked)]) == 1


def test_figures_are_of_the_side_that_goes_on():
    acknowledged = [("acknowledged", {"at": at}) for at in (99.5, 100.0, 104.0, 104.5, 130.0)]
    worked = [("worked", {"at": at, "began": at - 0.1}) for at in (99.9, 104.2, 104.9)]
    found = Failover("kill", "node1", "node2", began=100.0, done=100.1, writable=103.5, whole=112.0)
    found.asked = [Asked("node-1", "read", at, at + 0.25, 200) for at in (100.0, 101.0, 103.0)]
    found.report = SimpleNamespace(figures=[])
    figures = found.figures(Notes(near_writer=acknowledged, near_holder=worked))
    assert figures["write_gap_s"] == 4.0
    assert figures["writable_s"] == 3.5
    assert figures["resume_s"] == 0.7
    assert figures["read_gap_s"] == 2.0


def test_work_before_the_new_primary_of_a_switchover_is_none_that_went_on():
    worked = [("worked", {"at": at, "began": at - 0.1}) for at in (100.5, 103.2, 103.9)]
    found = Failover("switchover", "node1", began=100.0, done=100.0, writable=103.5, whole=106.0)
    assert found._resumed(Notes(near_holder=worked)) == pytest.approx(0.4)

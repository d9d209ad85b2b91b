"""Where leaderships belong: even, steady, and as an operator wants it. Pure rules, no database."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from engine_pg.cluster.placement import Candidate, Leader, preferred, unsettled
from engine_pg.ids import derived_id, hash64

NAMES = [f"monitor/{number:02}" for number in range(64)] + [f"name/{n}" for n in range(136)]


def member(node: str, **how) -> Candidate:
    return Candidate(derived_id(node, how.pop("life", 1)), node, **how)


def placed(candidates: list[Candidate], names: list[str] = NAMES) -> dict[str, UUID | None]:
    return {name: preferred(Leader(name), candidates) for name in names}


nodes = st.sets(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), min_size=2, max_size=12)
members = nodes.map(lambda found: [member(node) for node in sorted(found)])
numbers = st.integers(0, 1000)


def bound(share: float, count: int = len(NAMES)) -> float:
    """Return how far from its share a count may be: five standard deviations."""
    return 5 * math.sqrt(count * share * (1 - share)) + 1


@given(members)
def test_leaderships_spread_evenly(candidates):
    led = Counter(placed(candidates).values())
    share = 1 / len(candidates)
    for each in candidates:
        assert abs(led[each.member_id] - len(NAMES) * share) <= bound(share)


@given(members, numbers)
def test_who_leaves_moves_its_own_leaderships_and_who_joins_takes_only_its_share(found, number):
    one = found[number % len(found)]
    others = [each for each in found if each is not one]
    with_it, without = placed(found), placed(others)
    moved = [name for name in NAMES if with_it[name] != without[name]]
    assert {with_it[name] for name in moved} <= {one.member_id}
    assert len(moved) <= len(NAMES) / len(found) + bound(1 / len(found))


@given(members, numbers)
def test_a_restarted_node_gets_back_what_it_had(found, number):
    index = number % len(found)
    before = placed(found)
    again = member(found[index].node, life=2)
    after = placed([*found[:index], again, *found[index + 1 :]])
    swap = {found[index].member_id: again.member_id}
    assert after == {name: swap.get(led, led) for name, led in before.items()}


@given(members, st.permutations(range(12)))
def test_everybody_who_sees_the_same_computes_the_same(found, order):
    shuffled = [found[index] for index in order if index < len(found)]
    assert placed(shuffled) == placed(found)


@given(nodes, st.data())
def test_shares_follow_the_weights(found, data):
    weights = data.draw(st.lists(st.floats(0.25, 4), min_size=len(found), max_size=len(found)))
    candidates = [member(n, weight=w) for n, w in zip(sorted(found), weights, strict=True)]
    led = Counter(placed(candidates).values())
    for each in candidates:
        share = each.weight / sum(weights)
        assert abs(led[each.member_id] - len(NAMES) * share) <= bound(share)


@given(members, numbers, st.floats(1, 8))
def test_a_higher_weight_takes_and_gives_nothing_to_third_parties(found, number, weight):
    index = number % len(found)
    heavier = replace(found[index], weight=weight)
    before, after = placed(found), placed([*found[:index], heavier, *found[index + 1 :]])
    assert {after[n] for n in NAMES if after[n] != before[n]} <= {heavier.member_id}


def test_weight_zero_leads_only_what_nobody_else_can():
    spare, other = member("spare", weight=0.0), member("other", offers=frozenset(NAMES[:10]))
    led = placed([spare, other])
    assert {led[name] for name in NAMES[:10]} == {other.member_id}
    assert {led[name] for name in NAMES[10:]} == {spare.member_id}


@given(members)
def test_without_weights_the_order_is_the_one_of_the_release_before(found):
    for name in NAMES[:20]:
        first = max(found, key=lambda each: hash64(f"{name}@{each.node}"))
        assert preferred(Leader(name), found) == first.member_id


@given(members, numbers)
def test_a_pin_holds_while_its_node_takes_work(found, number):
    pinned = found[number % len(found)]
    leader = Leader("x", pinned_node=pinned.node)
    assert preferred(leader, found) == pinned.member_id
    drained = [replace(e, draining=True) if e is pinned else e for e in found]
    assert preferred(leader, drained) == preferred(Leader("x"), drained)
    assert preferred(replace(leader, pinned_node="elsewhere"), found) == preferred(
        Leader("x"), found
    )


@given(members, numbers)
def test_who_was_asked_to_resign_is_avoided_while_another_can_lead(found, number):
    asked = found[number % len(found)]
    leader = Leader("x", avoid_member_id=asked.member_id, pinned_node=asked.node)
    assert preferred(leader, found) not in (None, asked.member_id)
    assert preferred(leader, [asked]) == asked.member_id


def test_who_drains_or_does_not_know_a_name_is_not_chosen():
    busy, old = member("busy", draining=True), member("old", offers=frozenset({"known"}))
    assert preferred(Leader("known"), [busy, old]) == old.member_id
    assert preferred(Leader("new"), [busy, old]) is None
    assert preferred(Leader("new"), [member("older")]) == derived_id("older", 1)


def test_of_two_lives_of_a_node_the_newer_leads():
    dead, alive = member("a", joined_s=1.0), member("a", life=2, joined_s=2.0)
    assert preferred(Leader("x"), [dead, alive]) == alive.member_id
    assert preferred(Leader("x"), [alive, dead]) == alive.member_id


def test_a_leadership_is_unsettled_while_it_is_vacant_or_elsewhere():
    a, b = member("a"), member("b", draining=True)
    leaders = [Leader("here", a.member_id), Leader("there", b.member_id), Leader("nowhere")]
    assert unsettled(leaders, [a, b]) == ["there", "nowhere"]
    assert unsettled(leaders, [b]) == []

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_pg.errors import Invalid
from engine_pg.simulator.gate import MAX_GRANTS, Gate, Grant, parse_grants

KEY = "vm/1"


def exclusive(token: int, key: str = KEY) -> Grant:
    return Grant(key, "exclusive", token)


def shared(token: int, key: str = KEY) -> Grant:
    return Grant(key, "shared", token)


def gate_after(*grants: Grant) -> Gate:
    gate = Gate()
    gate.accept(grants)
    return gate


def test_an_exclusive_token_below_an_exclusive_one_is_stale():
    stale = gate_after(exclusive(7)).stale([exclusive(6)])
    assert stale is not None
    assert (stale.grant, stale.highest) == (exclusive(6), 7)
    assert "6" in stale.reason
    assert "7" in stale.reason
    assert KEY in stale.reason


def test_an_exclusive_token_below_a_shared_one_is_stale():
    assert gate_after(shared(7)).stale([exclusive(6)])


def test_a_shared_token_below_an_exclusive_one_is_stale():
    assert gate_after(exclusive(7)).stale([shared(6)])


def test_a_shared_token_below_a_shared_one_is_fresh():
    assert gate_after(shared(7)).stale([shared(6)]) is None


def test_the_same_token_stays_fresh():
    assert gate_after(exclusive(7)).stale([exclusive(7)]) is None


def test_keys_do_not_know_each_other():
    assert gate_after(exclusive(7, "vm/2")).stale([exclusive(1)]) is None


def test_one_stale_grant_of_several_is_enough():
    gate = gate_after(exclusive(7), shared(9, "host/1"))
    assert gate.stale([shared(9, "host/1"), exclusive(6)])


def test_a_late_token_never_lowers_the_gate():
    gate = gate_after(exclusive(7))
    gate.accept([exclusive(3)])
    assert gate.stale([exclusive(6)])


grants = st.builds(
    Grant, st.sampled_from(["a", "b"]), st.sampled_from(["exclusive", "shared"]), st.integers(0, 9)
)


@given(st.lists(grants, max_size=20), grants)
def test_the_gate_knows_what_a_search_through_all_accepted_grants_finds(accepted, asked):
    gate = Gate()
    for grant in accepted:
        gate.accept([grant])
    overtaken = [
        grant
        for grant in accepted
        if grant.key == asked.key
        and grant.token > asked.token
        and "exclusive" in (grant.mode, asked.mode)
    ]
    stale = gate.stale([asked])
    assert (stale is not None) == bool(overtaken)
    if stale is not None:
        assert stale.highest == max(grant.token for grant in overtaken)


@given(st.lists(grants, max_size=5))
def test_grants_survive_the_wire(given_grants):
    assert parse_grants([grant.as_json() for grant in given_grants]) == tuple(given_grants)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        ["vm/1"],
        [{"mode": "shared", "token": 1}],
        [{"key": "", "mode": "shared", "token": 1}],
        [{"key": "vm/1", "mode": "some", "token": 1}],
        [{"key": "vm/1", "mode": "shared", "token": "1"}],
        [{"key": "vm/1", "mode": "shared", "token": True}],
        [{"key": "vm/1", "mode": "shared", "token": -1}],
        [{"key": "vm/1", "mode": "shared", "token": 1 << 63}],
        [{"key": "vm/1", "mode": "shared", "token": 1}] * (MAX_GRANTS + 1),
    ],
)
def test_what_is_no_list_of_grants_is_refused(raw):
    with pytest.raises(Invalid):
        parse_grants(raw)

"""Each checker of the chaos runs finds a bad history bad, and a good one good."""

import pytest
from chaos.checks import exclusion, fairness, handover, leaks, resumption, tokens, writes
from chaos.checks.timeline import Timeline
from chaos.history import History, Operation, load, operations
from chaos.report import quantile, report
from chaos.schedule import KINDS, schedule
from chaos.witness import Gate

TTL_S = 2.0


def act(at, owner, *, mode="exclusive", token=1, key="k/1", done=True, trust=100.0, checked=None):
    return {
        "kind": "act",
        "at": at,
        "until": at + 0.03,
        "key": key,
        "mode": mode,
        "token": token,
        "owner": owner,
        "member": owner,
        "done": done,
        "checked": at if checked is None else checked,
        "trusted_until": trust,
    }


def promises(violations):
    return [each.promise for each in violations]


def acquired(call, ret, token, key="k/1", process="w"):
    operation = Operation(process, "acquire", {}, call, ret)
    operation.end("ok", tokens={key: token})
    return operation


def written(name, outcome, process="w", ret=1.0):
    operation = Operation(process, "write", {"id": name}, 0.0, ret)
    operation.end(outcome)
    return operation


def row(name, token, previous, count, *, key="k/1", after_end=False):
    record = {"write_id": name, "key": key, "token": token, "previous": previous, "count": count}
    return record | {"after_end": after_end}


def test_two_exclusive_acts_at_once_are_found():
    acts = [act(1.0, "a", token=1), act(1.01, "b", token=2)]
    assert promises(exclusion.check(acts)) == ["exclusion"]


def test_a_shared_and_an_exclusive_act_at_once_are_found():
    acts = [act(1.0, "a", token=1, mode="shared"), act(1.02, "b", token=2)]
    assert promises(exclusion.check(acts)) == ["exclusion"]


def test_shared_acts_at_once_and_exclusive_ones_in_turn_are_right():
    acts = [
        act(1.0, "a", mode="shared"),
        act(1.01, "b", token=2, mode="shared"),
        act(2.0, "a", token=3),
        act(2.04, "b", token=4),
        act(2.05, "c", token=5, key="k/2"),
    ]
    assert promises(exclusion.check(acts)) == []


def test_a_late_call_excuses_an_overlap_with_a_newer_token_only():
    late = act(5.0, "a", token=1, trust=4.0, checked=3.9)
    assert promises(exclusion.check([late, act(5.01, "b", token=2)])) == []
    assert promises(exclusion.check([act(4.99, "b", token=2), late])) == ["exclusion"]


def test_an_act_that_began_past_its_trust_is_found():
    assert promises(exclusion.check([act(5.0, "a", trust=4.0, checked=4.1)])) == ["fencing"]


def test_a_refused_act_of_somebody_who_was_trusted_is_found():
    assert promises(exclusion.check([act(5.0, "a", done=False)])) == ["exclusion"]
    assert promises(exclusion.check([act(5.0, "a", done=False, trust=4.9, checked=4.8)])) == []


def test_tokens_that_fall_or_repeat_are_found():
    assert promises(tokens.check_tokens([acquired(1, 2, 7), acquired(3, 4, 6)])) == [
        "rising tokens"
    ]
    assert "rising tokens" in promises(tokens.check_tokens([acquired(1, 2, 7), acquired(1, 4, 7)]))


def test_tokens_of_grants_that_overlap_in_time_may_come_in_any_order():
    assert promises(tokens.check_tokens([acquired(1, 5, 7), acquired(2, 3, 6)])) == []
    assert promises(tokens.check_tokens([acquired(1, 2, 6), acquired(3, 4, 7)])) == []


def led(at, name, term, process):
    return {
        "kind": "led",
        "at": at,
        "name": name,
        "term": term,
        "member": process,
        "process": process,
    }


def test_a_term_led_by_two_and_a_term_that_falls_are_found():
    assert promises(tokens.check_terms([led(1, "x", 1, "a"), led(2, "x", 1, "b")])) == [
        "rising tokens"
    ]
    assert promises(tokens.check_terms([led(1, "x", 2, "a"), led(2, "x", 1, "b")])) == [
        "rising tokens"
    ]
    assert promises(tokens.check_terms([led(1, "x", 1, "a"), led(2, "x", 2, "b")])) == []


def test_a_stale_write_is_found():
    rows = [row("1", 5, None, 1), row("2", 4, 5, 2)]
    assert promises(writes.check([], rows)) == ["fencing"]
    assert promises(writes.check([], [row("1", 5, None, 1, after_end=True)])) == ["fencing"]


def test_a_lost_write_a_gap_and_a_refused_one_that_is_there_are_found():
    rows = [row("1", 5, None, 1), row("3", 6, 5, 3)]
    assert promises(writes.check([], rows)) == ["nothing lost"]
    assert promises(writes.check([written("2", "ok")], [row("1", 5, None, 1)])) == ["nothing lost"]
    assert promises(writes.check([written("1", "refused")], [row("1", 5, None, 1)])) == ["fencing"]
    assert promises(writes.check([written("1", "unknown")], [row("1", 5, None, 1)])) == []


def test_what_is_left_at_the_end_is_found():
    assert promises(leaks.check("at the end", {"grants": [{"id": 1}], "tickets": []})) == [
        "nothing left"
    ]


def fault(number, kind, target, begin, end, **found):
    return [
        {"kind": "fault", "fault": kind, "number": number, "target": target, "at": begin},
        {"kind": "healed", "number": number, "at": end, **found},
    ]


def timeline(*records):
    flat = [{"process": "conductor"} | record for record in records]
    return Timeline(sorted(flat, key=lambda record: record["at"]), ttl_s=TTL_S)


def test_a_slow_takeover_is_found_only_while_the_survivors_were_well():
    kill = fault(1, "kill", "a", 10.0, 15.0)
    leads = [led(1.0, "x", 1, "a"), led(13.0, "x", 2, "b")]
    slow = timeline(*kill, *leads)
    assert promises(handover.check(slow, handover.handovers(slow), slack_s=0.1)) == ["takeover"]
    unwell = timeline(*kill, *leads, {"kind": "unwell", "at": 11.0, "process": "b"})
    found = handover.handovers(unwell)
    assert [each.counts for each in found] == [False]
    assert promises(handover.check(unwell, found, slack_s=0.1)) == []


def test_a_takeover_in_time_is_right_and_one_beside_another_fault_does_not_count():
    leads = [led(1.0, "x", 1, "a"), led(12.4, "x", 2, "b")]
    good = timeline(*fault(1, "kill", "a", 10.0, 15.0), *leads)
    [only] = handover.handovers(good)
    assert only.counts
    assert only.took_s == pytest.approx(2.4)
    beside = timeline(
        *fault(1, "kill", "a", 10.0, 15.0), *fault(2, "stall", "database", 9, 9.5), *leads
    )
    assert [each.counts for each in handover.handovers(beside)] == [False]


def joined(at, process):
    return {"kind": "joined", "at": at, "process": process}


def test_a_leadership_that_moves_past_a_newcomer_is_found():
    join = [*fault(7, "join", "newcomer", 10.0, 14.0), joined(10.5, "newcomer-7")]
    to_newcomer = led(11.0, "x", 2, "newcomer-7")
    first = [led(1.0, "x", 1, "a"), led(1.0, "y", 1, "a")]
    right = timeline(*join, *first, to_newcomer)
    assert promises(handover.check_newcomers(right)) == []
    assert handover.shares(right) == [(1, 2)]
    wrong = timeline(*join, *first, to_newcomer, led(11.0, "y", 2, "b"))
    assert promises(handover.check_newcomers(wrong)) == ["fair share"]


def test_who_came_a_moment_before_a_newcomer_takes_his_share_as_well():
    join = [*fault(7, "join", "newcomer", 10.0, 14.0), joined(12.5, "newcomer-7")]
    first = led(1.0, "y", 1, "a")
    before_it = timeline(*join, joined(9.3, "b"), first, led(10.8, "y", 2, "b"))
    assert promises(handover.check_newcomers(before_it)) == []
    just_then = timeline(*join, joined(11.0, "b"), first, led(12.6, "y", 2, "b"))
    assert promises(handover.check_newcomers(just_then)) == []
    long_there = timeline(*join, joined(9.3, "b"), first, led(12.6, "y", 2, "b"))
    assert promises(handover.check_newcomers(long_there)) == ["fair share"]


def test_nobody_at_work_long_after_an_outage_is_found():
    outage = timeline(*fault(1, "restart", "database", 10.0, 12.0, accepting_at=12.0))
    late = resumption.resumptions(outage, [acquired(1, 2, 1), acquired(12, 19.0, 2)])
    assert promises(resumption.check(late, bound_s=5.0)) == ["resumption"]
    soon = resumption.resumptions(outage, [acquired(1, 2, 1), acquired(9, 12.1, 2)])
    assert promises(resumption.check(soon, bound_s=5.0)) == []


def test_a_starved_waiter_is_found_only_in_a_stretch_without_a_fault():
    waits = [acquired(10.0, 40.0, 1)]
    assert promises(fairness.check(timeline(), waits, bound_s=25.0)) == ["fairness"]
    hurt = timeline(*fault(1, "stall", "database", 20.0, 22.0))
    assert promises(fairness.check(hurt, waits, bound_s=25.0)) == []


def test_a_history_tells_operations_that_never_returned(tmp_path):
    history = History(tmp_path / "w.jsonl", "w")
    with history.operation("acquire", keys={}) as operation:
        operation.end("ok", tokens={})
    history.note("call", op="write", id="lost", args={"id": "1"})
    (tmp_path / "torn.jsonl").write_text('{"kind": "call", "at"')
    assert [(op.op, op.outcome) for op in operations(load(tmp_path))] == [
        ("acquire", "ok"),
        ("write", "unknown"),
    ]


def test_the_witness_refuses_stale_tokens_as_a_host_does():
    gate = Gate()
    assert gate.admits("k", "exclusive", 5)
    assert gate.admits("k", "shared", 6)
    assert not gate.admits("k", "exclusive", 5)
    assert not gate.admits("k", "shared", 4)
    assert gate.admits("k", "shared", 5)


def faults(seed, count=60):
    drawn = schedule(seed, ["node-1"], ["worker-1", "worker-2"])
    return [str(next(drawn)) for _ in range(count)]


def test_a_seed_gives_the_same_faults_again_and_another_one_others():
    assert faults(1) == faults(1)
    assert faults(1) != faults(2)


def test_each_kind_comes_before_any_comes_again():
    drawn = schedule(3, ["node-1"], ["worker-1"])
    assert sorted(next(drawn).kind for _ in KINDS) == sorted(KINDS)


def test_a_report_names_what_broke_and_under_which_seed():
    result = {
        "seed": 7,
        "seconds": 60.0,
        "nodes": 3,
        "workers": 4,
        "ttl_s": 2.0,
        "machine": {
            "system": "s",
            "processors": 2,
            "load": [1.0],
            "python": "3",
            "postgresql": "18",
            "network": "wires",
        },
        "faults": {"kill": 2},
        "varieties": [[["kill", "at night"], 1]],
        "troubles": [],
        "operations": {"acquire": {"ok": 3}},
        "handovers": [{"kind": "kill", "name": "x", "took_s": 2.1, "counts": True}],
        "node_takeovers": [],
        "resumptions": [{"kind": "restart", "first_s": 0.1, "all_s": 0.2}],
        "longest_wait_s": 1.0,
        "shares": [[3, 12]],
        "figures": {},
        "violations": ["exclusion: two at once"],
    }
    text = report([result])
    assert "Violations: 1" in text
    assert "seed 7: exclusion: two at once" in text
    assert "| kill | 1 | 2.100 s | 2.100 s | 1 | 2.100 s | 2.100 s |" in text
    assert "| kill | 2 | 1 at night |" in text
    assert "Violations: none" in report([result | {"violations": []}])


def test_quantiles_are_values_that_were_measured():
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.99) == 2.0

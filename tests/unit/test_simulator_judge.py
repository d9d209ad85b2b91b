from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_pg.errors import Invalid
from engine_pg.simulator.judge import TAKEOVER_S, Verdict, judge

VM = "11111111-1111-1111-1111-111111111111"
OTHER = "22222222-2222-2222-2222-222222222222"


def key(name: str, token: int, mode: str = "exclusive") -> dict:
    return {"key": name, "mode": mode, "token": token}


@dataclass
class History:
    """Writes a journal by hand, a hundredth of a second per record."""

    records: list[dict] = field(default_factory=list)

    def record(self, kind: str, **fields) -> int:
        number = len(self.records) + 1
        self.records.append({"seq": number, "at": number / 100, "kind": kind} | fields)
        return number

    def begin(self, method="VM.destroy", token=1, *, vm=VM, host=1, fence=None, **fields) -> int:
        now = (len(self.records) + 1) / 100
        fields = {"mutating": True, "refused": False, "would_be_stale": False} | fields
        return self.record(
            "call_begun",
            host=host,
            method=method,
            vm=vm,
            fence=[key(f"vm/{vm}", token)] if fence is None else fence,
            received=now - fields.pop("waited", 0),
            **fields,
        )

    def end(self, call: int, *, ok: bool = True) -> None:
        begun = self.records[call - 1]
        self.record("call_ended", call=call, host=begun["host"], vm=begun["vm"], ok=ok)

    def call(self, *arguments, ok: bool = True, **fields) -> None:
        self.end(self.begin(*arguments, **fields), ok=ok)

    def read(self, token=1, **fields) -> None:
        self.call("Host.getVMList", token, mutating=False, **fields)

    def create(self, token=1, *, vm=VM, host=1, **fields) -> None:
        call = self.begin("VM.create", token, vm=vm, host=host, **fields)
        self.record("vm_started", vm=vm, host=host)
        self.end(call)

    def destroy(self, token=1, *, vm=VM, host=1, **fields) -> None:
        call = self.begin("VM.destroy", token, vm=vm, host=host, **fields)
        self.record("vm_stopped", vm=vm, host=host)
        self.end(call)

    def verdict(self) -> Verdict:
        return judge(self.records)

    def kinds(self) -> list[str]:
        return [violation.kind for violation in self.verdict().violations]


@pytest.fixture
def history():
    return History()


def test_an_orderly_life_is_clean(history):
    history.record("process_started")
    history.create(1)
    history.destroy(2)
    history.create(3, host=2)
    history.read(4)
    history.destroy(4, host=2)
    verdict = history.verdict()
    assert verdict.clean
    assert verdict.counts["vm_started"] == 2
    assert verdict.counts["mutating"] == 4
    assert verdict.counts["call_begun"] == 5


def test_a_vm_on_two_hosts_is_a_double_run(history):
    history.create(1)
    history.record("vm_started", vm=VM, host=2)
    (violation,) = history.verdict().violations
    assert violation.kind == "double run"
    assert [record["host"] for record in violation.records] == [1, 2]


def test_a_vm_started_while_it_runs_is_a_double_run(history):
    history.record("vm_started", vm=VM, host=1)
    history.record("vm_started", vm=VM, host=1)
    assert history.kinds() == ["double run"]


def test_a_restart_of_the_process_does_not_stop_a_vm(history):
    history.create(1)
    history.record("process_started")
    history.record("vm_started", vm=VM, host=2)
    assert history.kinds() == ["double run"]


def test_a_vm_may_run_elsewhere_after_it_stopped(history):
    history.create(1)
    history.record("vm_stopped", vm=VM, host=1)
    history.create(2, host=2)
    assert history.verdict().clean


def test_two_successful_creations_without_a_stop_are_a_double_creation(history):
    history.call("VM.create")
    history.call("VM.create", host=2)
    (violation,) = history.verdict().violations
    assert violation.kind == "double creation"
    assert [record["seq"] for record in violation.records] == [1, 3]


def test_a_creation_that_failed_is_none(history):
    history.create(1)
    history.call("VM.create", 1, ok=False)
    assert history.verdict().clean


def test_a_stop_before_the_answer_to_the_creation_counts(history):
    first = history.begin("VM.create")
    history.record("vm_started", vm=VM, host=1)
    history.record("vm_stopped", vm=VM, host=1)
    history.end(first)
    history.create(2)
    assert history.verdict().clean


def test_the_latest_creation_counts_whichever_was_answered_first(history):
    first = history.begin("VM.create", 1)
    history.record("vm_stopped", vm=VM, host=1)
    history.call("VM.create", 1)
    history.end(first)
    history.call("VM.create", 1)
    (violation,) = [v for v in history.verdict().violations if v.kind == "double creation"]
    assert [record["seq"] for record in violation.records] == [3, 6]


def test_a_stop_after_the_second_creation_excuses_nothing(history):
    history.call("VM.create")
    second = history.begin("VM.create")
    history.record("vm_stopped", vm=VM, host=1)
    history.end(second)
    assert history.kinds() == ["double creation"]


def test_a_call_under_a_token_that_its_host_saw_overtaken_is_stale(history):
    history.read(6)
    history.call("VM.destroy", 5)
    (violation,) = history.verdict().violations
    assert violation.kind == "stale call"
    assert [record["seq"] for record in violation.records] == [1, 3]


@pytest.mark.parametrize(("fencing", "kinds"), [("all", ["stale call"]), ("none", [])])
def test_a_question_overtakes_only_where_the_host_can_shut_its_gate(history, fencing, kinds):
    history.record("process_started", fencing=fencing)
    history.read(6)
    history.destroy(5)
    assert history.kinds() == kinds


def test_a_change_overtakes_on_every_host(history):
    history.record("process_started", fencing="none")
    history.create(6)
    history.destroy(5)
    assert history.kinds() == ["stale call"]


def test_a_call_under_a_token_that_acted_elsewhere_is_stale(history):
    history.call("VM.create", 6, host=2)
    history.call("VM.destroy", 5)
    assert history.kinds() == ["stale call"]


def test_a_question_to_another_host_makes_nothing_stale(history):
    history.read(6, host=2)
    history.call("VM.destroy", 5)
    history.read(6)
    assert history.verdict().clean


def test_a_refused_call_is_no_violation_and_shows_no_token(history):
    history.read(6)
    history.call("VM.destroy", 5, refused=True, would_be_stale=True, ok=False)
    history.call("VM.destroy", 9, refused=True, ok=False)
    history.call("VM.destroy", 7)
    verdict = history.verdict()
    assert verdict.clean
    assert verdict.counts["refused"] == 2
    assert verdict.counts["would_be_stale"] == 1


def test_a_stale_question_is_no_violation(history):
    history.read(6)
    history.read(5)
    assert history.verdict().clean


def test_shared_tokens_do_not_overtake_each_other(history):
    host = "host/1"
    for vm, token in ((VM, 7), (OTHER, 6)):
        fence = [key(host, token, "shared"), key(f"vm/{vm}", token)]
        history.call("VM.destroy", vm=vm, fence=fence)
    assert history.verdict().clean
    history.read(fence=[key(host, 8)])
    history.call("VM.destroy", fence=[key(host, 7, "shared"), key(f"vm/{VM}", 7)])
    assert history.kinds() == ["stale call"]


def test_two_calls_at_work_on_one_vm_overlap(history):
    first = history.begin("VM.create", 1)
    second = history.begin("VM.destroy", 2, host=2)
    history.end(first)
    history.end(second)
    (violation,) = history.verdict().violations
    assert violation.kind == "overlap"
    assert VM in violation.what
    assert [record["seq"] for record in violation.records] == [first, second]


def test_one_holder_that_does_two_things_at_once_overlaps(history):
    history.begin("VM.create", 1)
    history.begin("VM.destroy", 1)
    assert history.kinds() == ["overlap"]


def test_calls_one_after_the_other_do_not_overlap(history):
    history.call("VM.create", 1)
    history.call("VM.destroy", 1)
    assert history.verdict().clean


def test_calls_on_different_vms_do_not_overlap(history):
    history.begin(vm=VM)
    history.begin(vm=OTHER)
    assert history.verdict().clean


def test_creations_of_nothing_do_not_overlap(history):
    history.begin("VM.create", vm=None, fence=[])
    history.begin("VM.create", vm=None, fence=[])
    assert history.verdict().clean


def test_conflicting_grants_of_one_key_overlap(history):
    history.begin(vm=VM, fence=[key("host/1", 1, "shared")])
    history.begin(vm=OTHER, fence=[key("host/1", 2)])
    (violation,) = history.verdict().violations
    assert violation.kind == "overlap"
    assert "host/1" in violation.what


@pytest.mark.parametrize("mode", ["shared", "exclusive"])
def test_grants_that_agree_do_not_overlap(history, mode):
    second = 1 if mode == "exclusive" else 2
    history.begin(vm=VM, fence=[key("host/1", 1, mode)])
    history.begin(vm=OTHER, fence=[key("host/1", second, mode)])
    assert history.verdict().clean


def test_refused_calls_and_questions_are_never_at_work(history):
    history.begin("VM.create", 2)
    history.begin("VM.destroy", 1, refused=True)
    history.begin("VM.getStats", 3, mutating=False)
    assert history.verdict().clean


def test_a_call_dies_with_its_process_and_its_host(history):
    history.begin("VM.create", 1)
    history.record("process_started")
    history.begin("VM.destroy", 2)
    history.record("host_booted", host=1)
    history.begin("VM.destroy", 3)
    assert history.verdict().clean
    history.record("host_booted", host=2)
    history.begin("VM.destroy", 4)
    assert history.kinds() == ["overlap"]


def test_a_late_call_before_its_successor_is_excused(history):
    late = history.begin("VM.create", 1, waited=2.0)
    history.begin("VM.destroy", 2)
    history.end(late)
    assert history.verdict().clean


def test_two_late_calls_sent_together_are_not_excused(history):
    history.begin("VM.create", 1, waited=2.0)
    history.begin("VM.destroy", 2, waited=2.0)
    assert history.kinds() == ["overlap"]


def test_a_late_call_is_not_excused_without_rising_tokens(history):
    history.begin("VM.create", 1, waited=2.0)
    history.begin("VM.destroy", 1)
    assert history.kinds() == ["overlap"]


def test_a_long_call_that_was_not_late_is_not_excused(history):
    history.begin("VM.create", 1)
    for _ in range(int(TAKEOVER_S * 100) + 5):
        history.record("connected")
    history.begin("VM.destroy", 2)
    assert history.kinds() == ["overlap"]


def test_a_call_that_was_hardly_late_is_not_excused(history):
    history.begin("VM.create", 1, waited=TAKEOVER_S / 2)
    history.begin("VM.destroy", 2)
    assert history.kinds() == ["overlap"]


def test_calls_without_tokens_are_counted(history):
    history.call("VM.destroy", fence=[])
    assert history.verdict().counts["unfenced"] == 1


def test_a_history_with_a_hole_is_not_judged(history):
    history.create(1)
    del history.records[1]
    with pytest.raises(Invalid, match="between 1 and 3"):
        history.verdict()


@pytest.mark.parametrize("broken", [{"kind": "vm_started"}, {"kind": "call_begun", "host": 1}])
def test_a_record_that_lacks_something_is_not_judged(broken):
    with pytest.raises(Invalid, match="Record 1"):
        judge([{"seq": 1} | broken])


class Model:
    """Holders that play by the rules: one at a time per VM, tokens rise, a successor asks first."""

    def __init__(self) -> None:
        self.history = History()
        self.token = 0
        self.tokens: dict[str, int] = {}
        self.runs_on: dict[str, int] = {}
        self.late: list[tuple[str, int, int]] = []

    def grant(self, vm: str) -> int:
        self.token += 1
        self.tokens[vm] = self.token
        for host in (1, 2):
            self.history.read(self.token, vm=vm, host=host)
        return self.token

    def step(self, what: str, vm: str, host: int) -> None:
        if what == "late":
            self.late.append((vm, self.tokens.get(vm, 0), host))
        elif what == "arrive" and self.late:
            vm, token, host = self.late.pop()
            refused = token < self.tokens.get(vm, 0)
            self.history.call("VM.pause", token, vm=vm, host=host, refused=refused)
        elif what == "start" and vm not in self.runs_on:
            self.history.create(self.grant(vm), vm=vm, host=host)
            self.runs_on[vm] = host
        elif what == "stop" and vm in self.runs_on:
            self.history.destroy(self.grant(vm), vm=vm, host=self.runs_on.pop(vm))
        elif what == "kill":
            self.history.record("process_started")


steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "stop", "late", "arrive", "kill"]),
        st.sampled_from([VM, OTHER]),
        st.sampled_from([1, 2]),
    ),
    max_size=30,
)


def played(moves) -> Model:
    model = Model()
    for move in moves:
        model.step(*move)
    return model


@given(steps)
def test_whoever_plays_by_the_rules_is_clean(moves):
    assert played(moves).history.verdict().violations == []


@given(steps, st.sampled_from([VM, OTHER]), st.sampled_from([1, 2]))
def test_a_foul_is_seen_after_any_game(moves, vm, host):
    model = played(moves)
    model.step("start", vm, host)
    clean = len(model.history.records)

    def foul(commit) -> set[str]:
        del model.history.records[clean:]
        commit()
        return set(model.history.kinds())

    other = 3 - model.runs_on[vm]
    token = model.tokens[vm]
    assert foul(lambda: model.history.create(token, vm=vm, host=other)) == {
        "double run",
        "double creation",
    }
    assert foul(lambda: model.history.destroy(token - 1, vm=vm, host=host)) == {"stale call"}
    assert "overlap" in foul(
        lambda: [model.history.begin(token=token + more, vm=vm, host=host) for more in (1, 2)]
    )

"""Commands and leaderships among the locks of several processes that are hurt meanwhile.

The rules of test_stateful.py, and more: who runs a command holds locks for it; when it ends, they
stand for the adopter and are free for nobody in between. What is led is led by one at a time, and
by nobody who drains while somebody else does not.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from cluster.lock_laboratory import BOUND_S, INFINITE, Asked, Laboratory, Term
from cluster.test_stateful import MODES, ProcessesMachine, picks, places, walk_in, wishes
from cluster.walks import SECONDS
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from engine_pg.clock import boottime

SINGLETONS = ["one", "two", "three"]
OVER = """
update command set state = 'succeeded', accepted_at = now(), started_at = now(), ended_at = now()
 where command_id = %s
"""
STANDING = """
select id, mode, token from lock_grant where command_id = %s and member_id is null
"""
LED = """
select l.name, l.term, m.member_id::text, m.draining from leader l
  join member m using (member_id) where m.state = 'live'
"""
WILLING = "select count(*) from member where state = 'live' and not draining"


class CommandsMachine(ProcessesMachine):
    @initialize()
    def begin(self) -> None:
        super().begin()
        for place in range(len(self.laboratory.processes)):
            self.laboratory.drain(place, on=False)

    # What those do who run commands

    @rule(place=places, keys=wishes)
    def run_a_command(self, place, keys):
        self.asked.append(self.laboratory.run_command(place, keys))

    @rule(place=places, pick=picks)
    def ask_for_a_command_that_somebody_runs(self, place, pick):
        self.sync()
        for running in self.one_of([each for each in self.held() if each.command], pick):
            asks = self.laboratory.adopt(place, running)
            self.asked.append(asks)
            asks.process.until_told(lambda asks=asks: not asks.open or asks.process.frozen)
            if asks.granted_at < INFINITE:  # he was ended, of which he may not have heard yet
                assert self.troubled
                self.is_adopted(running, asks)

    @rule(place=places, keys=wishes, rival=places, pick=picks)
    def end_who_runs_a_command(self, place, keys, rival, pick):
        """Whoever asks meanwhile gets nothing, and then one adopts what stands."""
        self.quiet()
        running = self.laboratory.run_command(place, keys)
        self.asked.append(running)
        running.process.until_told(lambda: not running.open)
        if not running.held:
            return
        self.kill_a_process(place)
        opposite = [(key, MODES[1 - MODES.index(mode)]) for key, mode in keys]
        self.acquire(rival, keys, 0.0)
        self.acquire(rival, opposite, 5.0)  # longer than a lease
        self.quiet()
        assert self.stands(running)
        self.adopt_what_was_left(pick, place, 2)

    @rule(pick=picks, place=places, rivals=st.integers(1, 3))
    def adopt_what_was_left(self, pick, place, rivals):
        """Whoever of several is first has it, under higher tokens."""
        self.quiet()
        for left in self.one_of([each for each in self.asked if self.stands(each)], pick):
            everywhere = [
                (place + other) % len(self.laboratory.processes) for other in range(rivals)
            ]
            asking = [self.laboratory.adopt(where, left) for where in everywhere]
            self.asked += asking
            for asks in asking:
                asks.process.until_told(lambda asks=asks: not asks.open)
            [got] = [asks for asks in asking if asks.granted_at < INFINITE]
            assert {asks.refused for asks in asking if asks is not got} <= {"Claimed"}
            self.is_adopted(left, got)

    def is_adopted(self, left: Asked, by: Asked) -> None:
        left.adopted_at = by.granted_at
        before = {(key, mode): token for key, mode, token in left.grants}
        assert before.keys() == {(key, mode) for key, mode, _ in by.grants}
        assert all(token > before[key, mode] for key, mode, token in by.grants)

    @rule(place=places, on=st.booleans())
    def drain(self, place, on):
        error = self.laboratory.drain(place, on=on)
        if error == "Conflict":  # nobody else would be left
            assert on
        elif error:
            assert (error, self.troubled) == ("NotFound", True)
        else:
            self.quiet()

    # What must hold

    @invariant()
    def what_is_led_is_led_by_one_at_a_time_under_rising_terms(self):
        if not hasattr(self, "asked"):
            return
        self.sync()
        terms = [term for term in self.terms() if not term.process.frozen]
        for name in SINGLETONS:
            led = sorted((each for each in terms if each.name == name), key=lambda each: each.term)
            for one, next_one in pairwise(led):
                assert one.term < next_one.term
                assert one.until <= next_one.began_at, f"{name} was led twice at once"

    @rule()
    def quiet(self):
        super().quiet()
        deadline = boottime() + BOUND_S
        while found := self.misled():
            assert boottime() < deadline, found
            self.replace_the_ended()
            self.sync()

    def misled(self) -> str:
        """Tell what is not led, or not where it belongs, or not as its process knows it."""
        rows = self.laboratory.rows(LED)
        [(willing,)] = self.laboratory.rows(WILLING)
        if sorted(row[0] for row in rows) != sorted(SINGLETONS):
            return f"led are {rows}"
        if willing and any(draining for *_, draining in rows):
            return f"led by who drains: {rows}"
        running = [
            (t.name, t.term, t.process.member_id) for t in self.terms() if t.until == INFINITE
        ]
        if Counter(running) != Counter((name, term, member) for name, term, member, _ in rows):
            return f"{running} run, and {rows} are led"
        return ""

    def terms(self) -> list[Term]:
        living = [term for process in self.laboratory.processes for term in process.terms]
        return [*self.laboratory.terms, *living]

    def known(self) -> list[tuple[str, str, int, str | None]]:
        standing = [each for each in self.asked if self.stands(each)]
        return super().known() + [(*grant, None) for each in standing for grant in each.grants]

    def stands(self, asked: Asked) -> bool:
        if not asked.command or asked.given_back or asked.held or asked.open:
            return False
        if asked.granted_at == INFINITE:  # its end came before its answer: it may have been granted
            found = self.laboratory.rows(STANDING, asked.command)
            mine = not any(each.grants for each in self.asked if each.command == asked.command)
            asked.grants = found if mine or asked.grants else []
            return bool(asked.grants) and asked.adopted_at == INFINITE
        return asked.adopted_at == INFINITE

    def give_back(self, asked: Asked) -> None:
        if not asked.command:
            super().give_back(asked)
            return
        self.laboratory.rows(OVER, asked.command)
        asked.given_back = True
        if not asked.process.frozen:
            asked.process.tell("finish", asked.number)
            asked.process.until_told(lambda: not asked.held)

    def teardown(self) -> None:
        if hasattr(self, "asked"):
            self.thaw()
            while any(self.stands(each) for each in self.asked) or any(
                each.open and each.command for each in self.asked
            ):
                self.adopt_what_was_left(0, 0, 2)
            for process in self.laboratory.processes:
                process.terms = [term for term in process.terms if term.until == INFINITE]
            self.laboratory.terms.clear()
        super().teardown()


@pytest.mark.timeout(max(180, SECONDS + 120))
def test_commands_and_leaderships_pass_from_process_to_process_whatever_befalls_them(
    postgres, fresh_database_url
):
    restart = postgres.embedded.restart_immediate if postgres.embedded else None
    laboratory = Laboratory(fresh_database_url, restart, singletons=SINGLETONS)
    walk_in(laboratory, CommandsMachine, examples=6, steps=20)

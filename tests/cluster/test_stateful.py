"""The rules of locks against a real PostgreSQL, with several processes that are hurt meanwhile.

What each process told is judged after each step: by the times at which it believed that it held a
key, by the rows in the database, and by the advisory locks of its session.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from cluster.lock_laboratory import BOUND_S, INFINITE, Asked, Laboratory
from cluster.walks import SECONDS, walk
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from engine_pg.clock import boottime
from engine_pg.cluster.keys import LockKey

NAMES = ["x", "y"]
MODES = ["exclusive", "shared"]
wishes = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(MODES), min_size=1).map(
    lambda found: sorted(found.items())
)
places = st.integers(0, 2)
picks = st.integers(0, 7)
AWAY = {"LeaseLost", "DatabaseAway", "OutcomeUnknown", "MemberEnded", "SessionSuperseded", "Killed"}

GRANTS = """
select g.id, g.mode, g.token, g.advisory, g.advisory_held, g.member_id::text,
       m.backend_pid
  from lock_grant g left join member m using (member_id)
 where kind = 'stateful'
"""
TICKETS = "select distinct ticket, member_id::text from lock_ticket"
ADVISORY = """
select (l.classid::bigint << 32) | l.objid::bigint, l.mode, l.pid from pg_locks l
 where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
   and l.database = (select oid from pg_database where datname = current_database())
"""
CUT = """
select pg_terminate_backend(backend_pid) from member where member_id = %s and state = 'live'
"""
WORDS = {"ShareLock": "shared", "ExclusiveLock": "exclusive"}
LIVE = "select member_id::text from member where state = 'live'"


def exclude(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return one[0] == other[0] and "exclusive" in (one[1], other[1])


class ProcessesMachine(RuleBasedStateMachine):
    laboratory: Laboratory

    @initialize()
    def begin(self) -> None:
        self.asked: list[Asked] = []
        self.troubled = False
        self.restarts = 0
        self.clean = False

    # What callers do

    @rule(place=places, keys=wishes, wait_s=st.sampled_from([0.0, 0.3, None, None]))
    def acquire(self, place, keys, wait_s):
        self.asked.append(self.laboratory.ask(place, keys, wait_s))

    @rule(pick=picks)
    def release(self, pick):
        for asked in self.one_of(self.held(), pick):
            self.give_back(asked)

    @rule(pick=picks, at_once=st.booleans())
    def cancel(self, pick, at_once):
        if not at_once:
            self.sync()
        for asked in self.one_of(self.waiting(), pick):
            asked.cancelled = True
            asked.process.tell("cancel", asked.number)

    @rule(pick=picks)
    def write_under_a_fence(self, pick):
        self.sync()
        for asked in self.one_of(self.held(), pick):
            error = self.wrote(asked)
            assert error == "written" or (self.troubled and error in AWAY), error

    @rule(pick=picks)
    def write_under_what_was_given_back(self, pick):
        self.quiet()
        given = [each for each in self.asked if each.given_back and not each.process.gone]
        for asked in self.one_of(given, pick):
            assert self.wrote(asked) in AWAY | {"StaleToken"}

    @rule(seed=st.integers(0, 1 << 16), length=st.integers(5, 30))
    def much_at_once(self, seed, length):
        """Ask, release and cancel in an order of the dice, waiting for nothing."""
        dice = random.Random(seed)
        for _ in range(length):
            match dice.choice(("ask", "ask", "release", "cancel")):
                case "ask":
                    keys = sorted(dice.sample(NAMES, dice.choice((1, 1, 2))))
                    wanted = [(key, dice.choice(MODES)) for key in keys]
                    self.acquire(dice.randrange(3), wanted, dice.choice((0.0, 0.3, None)))
                case "release":
                    self.release(dice.randrange(8))
                case "cancel":
                    self.cancel(dice.randrange(8), at_once=dice.random() < 0.5)

    def wrote(self, asked: Asked) -> str:
        before = len(asked.writes)
        asked.process.tell("write", asked.number)
        asked.process.until_told(lambda: len(asked.writes) > before)
        return asked.writes[-1] if len(asked.writes) > before else "Killed"

    # What befalls them

    @rule(place=places)
    def cut_the_lock_session(self, place):
        self.troubled = True
        self.laboratory.rows(CUT, self.laboratory.processes[place].member_id)

    @rule(pick=picks)
    def break_a_lock(self, pick):
        """Its holder is told, and lets go: nobody has to take it from him."""
        self.sync()
        for asked in self.one_of([each for each in self.held() if not each.command], pick):
            self.troubled = True
            key, _, token = asked.grants[0]
            [broken] = self.laboratory.break_lock(key, token)
            asked.process.until_told(lambda asked=asked: asked.lost)
            assert asked.process.gone or f"{key} was broken by operator" in asked.lost
            assert broken.token == token
            assert not broken.forced or asked.process.gone

    @rule(place=places)
    def freeze(self, place):
        if not any(process.frozen for process in self.laboratory.processes):
            self.laboratory.processes[place].freeze()

    @rule()
    def thaw(self):
        for process in self.laboratory.processes:
            if process.frozen:
                self.troubled = True
                process.thaw()

    @rule(pick=picks, place=places, wait_s=st.sampled_from([0.0, None]))
    def ask_for_what_one_holds_whose_session_was_cut_in_its_sleep(self, pick, place, wait_s):
        """Nobody has the advisory lock then: only the grant, or a ticket before, is in the way."""
        self.thaw()
        self.sync()
        for asked in self.one_of(self.held(), pick):
            if asked.process is self.laboratory.processes[place]:
                return
            self.troubled = True
            asked.process.freeze()
            self.laboratory.rows(CUT, asked.process.member_id)
            asks = self.laboratory.ask(place, asked.keys, wait_s)
            self.asked.append(asks)
            if wait_s == 0.0:
                asks.process.until_told(lambda asks=asks: not asks.open)
            asked.process.thaw()

    @rule(place=places)
    def kill_a_process(self, place):
        self.troubled = True
        process = self.laboratory.processes[place]
        if process.frozen:
            process.frozen = False
        process.kill()
        self.laboratory.replace(place)

    @rule()
    def restart_the_server(self):
        if self.laboratory.restart_server and not self.restarts:
            self.troubled, self.restarts = True, 1
            self.laboratory.restart_server()

    # What must hold

    @rule()
    def quiet(self):
        """Let it come to rest: then rows, tickets and advisory locks are what processes know."""
        self.thaw()
        deadline = boottime() + BOUND_S
        while True:
            self.replace_the_ended()
            self.sync()
            found = self.disorder()
            if not found:
                return
            assert boottime() < deadline, found

    def disorder(self) -> str:
        """Tell what the database and the processes do not agree in."""
        rows = self.laboratory.rows
        members = {process.member_id for process in self.laboratory.processes}
        grants, tickets, advisory = rows(GRANTS), rows(TICKETS), rows(ADVISORY)
        known = Counter(self.known())
        waiting = [each for each in self.asked if each.open]
        unequal = {
            "live": (members, {member for (member,) in rows(LIVE)}),
            "grants": (known, Counter((row[0], row[1], row[2], row[5]) for row in grants)),
            "tickets": (
                Counter(w.process.member_id for w in waiting),
                Counter(t[1] for t in tickets),
            ),
            "advisory": (
                Counter(
                    {
                        (LockKey("stateful", row[0]).advisory, row[1], row[6])
                        for row in grants
                        if row[5]
                    }
                ),
                Counter((signed(key), WORDS[mode], pid) for key, mode, pid in advisory),
            ),
            "waiting for nobody": ([], [w.keys for w in waiting if not self.is_in_a_way(w)]),
            "without advisory": ([], [row for row in grants if row[5] and not row[4]]),
        }
        return "; ".join(
            f"{k}: {one} is not {two}" for k, (one, two) in unequal.items() if one != two
        )

    def known(self) -> list[tuple[str, str, int, str | None]]:
        """Tell which grants there must be: key, mode, token, member."""
        return [
            (*grant, each.process.member_id)
            for each in self.asked
            if each.held
            for grant in each.grants
        ]

    def stands(self, _asked: Asked) -> bool:
        """Tell whether its grants stand for an adopter."""
        return False

    def is_in_a_way(self, asked: Asked) -> bool:
        """Tell whether somebody holds what excludes it, or waits and is older or may be."""
        return any(
            exclude(mine, theirs)
            for other in self.asked
            if other is not asked and (other.held or other.open or self.stands(other))
            for mine in asked.keys
            for theirs in other.keys
        )

    @invariant()
    def no_two_believe_at_once_in_what_excludes_them(self):
        if not hasattr(self, "asked"):
            return
        self.sync()
        spans = [each for each in self.laboratory.history if each.granted_at < INFINITE]
        for number, one in enumerate(spans):
            for other in spans[:number]:
                if one.process.frozen or other.process.frozen:
                    continue  # what it believes is known when it is awake again
                for ours in one.grants:
                    for theirs in other.grants:
                        if exclude(ours[:2], theirs[:2]):
                            self.judge(one, ours[2], other, theirs[2])

    @staticmethod
    def judge(one: Asked, our_token: int, other: Asked, their_token: int) -> None:
        later, earlier = (one, other) if our_token > their_token else (other, one)
        adopted = earlier.command and earlier.command == later.command
        until = earlier.until if adopted else earlier.kept_until
        assert until <= later.granted_at, (
            f"{earlier.process.node} held {earlier.grants} until {until}, while"
            f" {later.process.node} was granted {later.grants} at {later.granted_at}"
        )

    @invariant()
    def what_is_held_has_a_grant_and_nobody_gives_up_early(self):
        if not hasattr(self, "asked"):
            return
        held = [each for each in self.held() if not each.process.frozen]
        grants = {(row[0], row[1], row[2], row[5]) for row in self.laboratory.rows(GRANTS)}
        self.sync()
        for each in held:
            if each.held and not each.process.gone:
                mine = {(*grant, each.process.member_id) for grant in each.grants}
                assert mine <= grants or self.is_over(each), f"{mine} are not in {grants}"
        for each in self.asked:
            assert not (each.refused == "LockBusy" and each.wait_s is None)
            assert not (each.refused == "Cancelled" and not each.cancelled)
            assert not each.lost or "is no longer held" not in each.lost, each.lost

    def is_over(self, asked: Asked) -> bool:
        """Tell whether its member was ended, which it may not have heard of."""
        live = {member for (member,) in self.laboratory.rows(LIVE)}
        return asked.process.member_id not in live

    def teardown(self) -> None:
        if not hasattr(self, "asked"):
            return
        self.thaw()
        for each in self.asked:
            if each.open and not each.process.gone:
                each.cancelled = True
                each.process.tell("cancel", each.number)
        self.sync()
        self.quiet_after(self.waiting)
        for each in self.held():
            self.give_back(each)
        self.quiet()
        deadline = boottime() + BOUND_S
        # What was under way for one who is cancelled is handed back by the batch after it.
        while left := [*self.laboratory.rows(GRANTS), *self.laboratory.rows(ADVISORY)]:
            assert boottime() < deadline, left
        witnessed = self.laboratory.rows(
            "select id, token from witness where mode = 'exclusive' order by seq"
        )
        for name in NAMES:
            tokens = [token for key, token in witnessed if key == name]
            assert tokens == sorted(tokens), "a stale holder wrote"
        self.laboratory.history.clear()
        self.clean = True

    # Words

    def quiet_after(self, busy) -> None:
        deadline = boottime() + BOUND_S
        while busy():
            assert boottime() < deadline, "a cancelled request does not end"
            self.sync()

    def give_back(self, asked: Asked) -> None:
        """Release; the process says first until when it held."""
        asked.given_back = True
        if not asked.process.frozen:
            asked.process.tell("release", asked.number)
            asked.process.until_told(lambda: not asked.held)

    def sync(self) -> None:
        for process in self.laboratory.processes:
            process.sync(next(self.laboratory.numbers))

    def replace_the_ended(self) -> None:
        for place, process in enumerate(self.laboratory.processes):
            if process.gone:
                assert process.ended, f"{process.node} failed"
                assert self.troubled, f"{process.node}, which nothing befell, was ended"
                process.buried()
                self.laboratory.replace(place)

    def held(self) -> list[Asked]:
        return [each for each in self.asked if each.held and not each.process.frozen]

    def waiting(self) -> list[Asked]:
        return [each for each in self.asked if each.open and not each.process.gone]

    @staticmethod
    def one_of(found, pick):
        return [found[pick % len(found)]] if found else []


def signed(advisory: int) -> int:
    return advisory - (1 << 64) if advisory >= 1 << 63 else advisory


def walk_in(
    laboratory: Laboratory, rules: type[ProcessesMachine], *, examples: int, steps: int
) -> None:
    class Machine(rules):
        pass

    Machine.laboratory = laboratory
    try:
        walk(Machine, examples=examples, steps=steps)
        for process in laboratory.processes:
            process.stop()
    finally:
        laboratory.close()


@pytest.mark.timeout(max(180, SECONDS + 120))
def test_locks_of_several_processes_exclude_each_other_whatever_befalls_them(
    postgres, fresh_database_url
):
    restart = postgres.embedded.restart_immediate if postgres.embedded else None
    walk_in(Laboratory(fresh_database_url, restart), ProcessesMachine, examples=6, steps=30)

"""Requests for locks against a simulated database, with everything that can go wrong between them.

The locks, requests, lines and lock sessions are the real ones; only the server's answers and the
time are ours. Statements stop between their steps, answers get lost, connections are cut, backends
killed, members ended, callers cancelled, waits time out, at any moment.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from unit.simulated_database import SimulatedDatabase, SimulatedSession, Statement, clash
from unit.virtual import VirtualClock, VirtualLoop, machine_settings

from engine_pg.cluster.keys import LockBusy, LockKey, Mode, Wanted
from engine_pg.cluster.locks import Hold, Locks
from engine_pg.cluster.ops import Holdings, Identity, Owners
from engine_pg.errors import EngineError, LeaseLost, MemberEnded
from engine_pg.ids import new_id

KEYS = [LockKey("test", name) for name in "ab"]
wishes = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(Mode), min_size=1).map(
    lambda found: [Wanted(key, found[key]) for key in sorted(found)]
)
places = st.integers(0, 2)
picks = st.integers(0, 7)
STAGES = ["sent", "executed", "committed"]
TTL_S = 2.0
LEAP_S = 1.0


class Member:
    """One life of a node: real locks over a real lock session over the simulated database."""

    def __init__(self, machine: LocksMachine) -> None:
        self.member_id = new_id()
        self.machine = machine
        owners = Owners(
            holdings=lambda: Holdings([g.record for g in self.locks.held], self.locks.tickets),
            resumed=self.resumed,
            ring=self.ring,
            ended=lambda error: self.locks.end(error),
        )
        self.session = SimulatedSession(
            machine.database,
            clock=machine.clock,
            identity=Identity(self.member_id, "node"),
            ttl_s=TTL_S,
            margin_s=0.2,
            heartbeat_s=0.4,
            owners=owners,
        )
        self.locks = Locks(self.session, clock=machine.clock)
        machine.loop.run_until_complete(self.session.join())
        self.running = machine.loop.create_task(self.run())

    async def run(self) -> None:
        with suppress(MemberEnded):
            await self.session.run()

    def resumed(self, records) -> None:
        self.locks.reconcile(records)
        self.machine.rings += [str(each.member_id) for each in self.machine.members]

    def ring(self, members) -> None:
        self.machine.rings += [each for each in members if each != str(self.member_id)]
        if str(self.member_id) in members:
            self.locks.serve()

    @property
    def live(self) -> bool:
        return self.member_id in self.machine.database.sessions


@dataclass(eq=False)
class Caller:
    member: Member
    wait_s: float | None
    since: float
    asking: asyncio.Task[Hold]
    seen: bool = False

    @property
    def hold(self) -> Hold | None:
        done = self.asking.done() and not self.asking.cancelled()
        return self.asking.result() if done and self.asking.exception() is None else None


class LocksMachine(RuleBasedStateMachine):
    @initialize(rough=st.booleans())
    def begin(self, rough) -> None:
        self.rough = rough  # else nothing is lost, so that no poll hides a ring that does not come
        self.clock = VirtualClock()
        self.loop = VirtualLoop(self.clock)
        self.database = SimulatedDatabase()
        self.rings: list[str] = []
        self.callers: list[Caller] = []
        self.members = [Member(self) for _ in range(3)]
        self.loop.settle()
        self.carry()

    # What callers do

    @rule(place=places, wanted=wishes, wait_s=st.sampled_from([0.0, 0.3, 5.0, None]))
    def acquire(self, place, wanted, wait_s):
        member = self.members[place]
        asking = self.loop.create_task(member.locks.acquire(*wanted, wait_s=wait_s))
        self.callers.append(Caller(member, wait_s, self.clock.now, asking))
        self.loop.settle()

    @precondition(lambda self: self.asking())
    @rule(pick=picks, turns=st.integers(0, 3))
    def cancel(self, pick, turns):
        """Cancel a caller, that many turns of the loop after all answers came."""
        cancel = self.pick(self.asking(), pick).asking.cancel
        for statement in self.database.at("committed") if turns else ():
            self.database.answer(statement)
        for _ in range(turns - 1):
            cancel = partial(self.loop.call_soon, cancel)
        self.loop.call(cancel)

    @precondition(lambda self: self.holding())
    @rule(pick=picks, again=st.booleans())
    def release(self, pick, again):
        caller = self.pick(self.holding(), pick)
        if not again:
            self.callers.remove(caller)
        self.loop.call(caller.member.locks.release, caller.hold)

    @precondition(lambda self: self.holding())
    @rule(pick=picks, place=places, before=st.integers(0, 3), after=st.integers(0, 3))
    def ask_for_what_is_just_given_back(self, pick, place, before, after):
        holder = self.pick(self.holding(), pick)
        self.acquire(place, list(holder.hold.entry.wanted), None)
        self.push(self.members[place], before)
        self.callers.remove(holder)
        self.loop.call(holder.member.locks.release, holder.hold)
        self.push(holder.member, after)

    @rule(seed=st.integers(0, 1 << 16), length=st.integers(1, 80))
    def much_at_once(self, seed, length):
        """Many small steps in an order of the dice: more than Hypothesis would think of."""
        dice = random.Random(seed)
        keys = KEYS[: dice.choice((1, 1, 2))]
        for _ in range(length):
            match dice.choice(("ask", "release", "cancel", "ring", "sleep", *["step"] * 8)):
                case "ask":
                    modes = {key: dice.choice(list(Mode)) for key in dice.sample(keys, len(keys))}
                    wanted = [Wanted(key, mode) for key, mode in modes.items()]
                    self.acquire(dice.randrange(3), wanted, dice.choice((0.0, 0.3, None, None)))
                case "release" if self.holding():
                    self.release(dice.randrange(8), again=False)
                case "cancel" if self.asking() and dice.random() < 0.3:
                    self.cancel(dice.randrange(8), dice.randrange(4))
                case "ring" if self.rings:
                    self.ring(dice.randrange(8))
                case "sleep":
                    self.sleep(dice.choice((0.001, 0.01, 0.03)))
                case _:
                    self.step([(dice.choice(STAGES), dice.randrange(8))])

    def push(self, member: Member, steps: int) -> None:
        """Let the statements of one member take some steps."""
        for _ in range(steps):
            mine = [s for stage in STAGES for s in self.database.at(stage)]
            for statement in [s for s in mine if s.member == member.member_id][:1]:
                self.take(statement)

    def take(self, statement: Statement) -> None:
        steps = (self.database.execute, self.database.commit, self.database.answer)
        steps[STAGES.index(statement.stage)](statement)
        self.loop.settle()

    # What the server and the network do

    @rule(steps=st.lists(st.tuples(st.sampled_from(STAGES), picks), min_size=1, max_size=8))
    def step(self, steps):
        """Let single statements take single steps, in any order."""
        for stage, pick in steps:
            if found := self.database.at(stage):
                self.take(self.pick(found, pick))

    @rule()
    def carry(self):
        """All that is under way arrives, and comes back."""
        for statement in self.database.at("sent"):
            if statement in self.database.at("sent"):  # one before it may have its member's row
                self.database.execute(statement)
                if statement.stage == "executed":
                    self.database.commit(statement)
        for statement in self.database.at("executed"):
            self.database.commit(statement)
        for statement in self.database.at("committed"):
            self.database.answer(statement)
        self.loop.settle()

    @precondition(lambda self: self.rings)
    @rule(pick=picks)
    def ring(self, pick):
        rung = self.pick(self.rings, pick)
        self.rings.remove(rung)
        for member in self.members:
            if str(member.member_id) == rung:
                self.loop.call(member.locks.serve)

    def poll(self, place):
        self.loop.call(self.members[place].locks.serve)

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.3, LEAP_S]))
    def sleep(self, seconds):
        self.loop.sleep(seconds)

    @precondition(lambda self: self.rough)
    @rule(place=places, pick=picks, kind=st.sampled_from(["cut", "cut any", "kill", "restart"]))
    def lose_sessions(self, place, pick, kind):
        """Cut connections, of whose end the server learns later, or end backends."""
        current = self.database.current[self.members[place].member_id]
        match kind:
            case "cut":
                self.database.cut(current)
            case "cut any":
                alive = [backend for backend in self.database.backends if backend.alive]
                self.database.cut(self.pick(alive or [current], pick))
            case "kill":
                self.database.kill(current)
            case "restart":
                self.database.restart()
        self.loop.settle()

    @precondition(lambda self: self.rough)
    @rule(place=places)
    def end_and_replace(self, place):
        """Take a member for dead; a new one joins in its place."""
        member = self.members[place]
        if member.live and self.database.may_end(member.member_id):
            self.database.end(member.member_id)
            self.database.lost_rings = True  # whoever ends a member rings all who wait
        if member.live:
            return
        self.settled(lambda: member.session.ended is not None)
        assert all(hold.lost for hold in member.locks._holds.values())
        gone = [caller for caller in self.callers if caller.member is member]
        assert all(caller.asking.done() for caller in gone), "somebody waits at an ended member"
        self.nobody_gives_up_early_or_waits_for_ever()
        self.callers = [caller for caller in self.callers if caller.member is not member]
        self.members[place] = Member(self)
        self.loop.settle()

    # What must hold

    @rule()
    def who_waits_is_in_somebodys_way_once_all_is_quiet(self):
        self.settled()
        for caller in self.asking():
            assert caller.wait_s != 0, "a caller that does not wait got no answer"
        rows = self.database.rows
        members = {each.member_id: each for each in self.members}
        waiting = {ticket for member in self.members for ticket in member.locks.tickets}
        assert waiting == {ticket for _, ticket in rows.tickets}
        for ticket in waiting:
            wanted = [Wanted(k, row.mode) for (k, n), row in rows.tickets.items() if n == ticket]
            way = [each for w in wanted for each in (*rows.granted(w), *rows.awaited(w, ticket))]
            assert way, f"ticket {ticket} waits for nobody"
        known = {(g.key, g.token) for each in self.members for g in each.locks.held}
        assert known == {place for place, row in rows.grants.items() if row.member in members}

    @rule()
    def waits_with_a_bound_end(self):
        for _ in range(24):
            self.sleep(0.5)
            self.carry()
        assert not [each for each in self.asking() if each.wait_s is not None]

    @invariant()
    def no_two_holds_exclude_each_other(self):
        if not hasattr(self, "loop"):
            return
        held = [
            (hold, grant)
            for member in self.members
            if member.live
            for hold in member.locks._holds.values()
            if hold.lost is None
            for grant in hold.grants
        ]
        for one, ours in held:
            for other, theirs in held:
                if one is not other:
                    assert not clash(Wanted(ours.key, ours.mode), theirs.key, theirs.mode)
        grants = self.database.rows.grants
        assert {(grant.key, grant.token) for _, grant in held} <= grants.keys()

    @invariant()
    def a_session_counts_one_advisory_lock_for_each_grant_that_says_so(self):
        if not hasattr(self, "loop"):
            return
        for member_id, backend in self.database.current.items():
            busy = any(s.member == member_id for s in self.database.at("executed"))
            if backend.alive and not busy and member_id in self.database.sessions:
                rows = self.database.rows.grants.items()
                told = Counter(
                    (k, r.mode) for (k, _), r in rows if r.member == member_id and r.held
                )
                assert +backend.advisory == told

    @invariant()
    def nobody_gives_up_early_or_waits_for_ever(self):
        if not hasattr(self, "loop"):
            return
        for caller in self.callers:
            waited_s = self.clock.now - caller.since
            if not caller.asking.done():
                if caller.wait_s is not None:
                    assert waited_s <= (caller.wait_s or TTL_S) + TTL_S + 4 * LEAP_S
            elif not caller.seen:
                caller.seen = True
                self.told(caller, waited_s)

    def told(self, caller: Caller, waited_s: float) -> None:
        if caller.asking.cancelled() or (error := caller.asking.exception()) is None:
            return
        assert isinstance(error, EngineError)
        if isinstance(error, LockBusy):
            assert caller.wait_s is not None, "who waits for ever was refused"
            assert waited_s >= caller.wait_s - 1e-6  # sums of floats
        elif not isinstance(error, LeaseLost | MemberEnded):
            assert waited_s >= (caller.wait_s or 0) + TTL_S - LEAP_S, error

    # Words

    def asking(self) -> list[Caller]:
        return [caller for caller in self.callers if not caller.asking.done()]

    def holding(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.hold is not None]

    @staticmethod
    def pick(found, pick):
        return found[pick % len(found)]

    def settled(self, enough=None) -> None:
        """Let everything arrive; polls only for rings that were lost with their answers."""
        quiet = 0
        for _ in range(200):
            if quiet >= 30 or (enough is not None and enough()):
                return
            if any(map(self.database.at, STAGES)) or self.rings:
                self.carry()
                while self.rings:
                    self.ring(0)
            else:
                quiet += 1
                self.sleep(0.05)
                if self.database.lost_rings:
                    self.database.lost_rings, quiet = False, 0
                    for place in range(3):
                        self.poll(place)
        raise AssertionError("it does not come to rest")

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.who_waits_is_in_somebodys_way_once_all_is_quiet()
        for caller in list(self.callers):
            caller.asking.cancel()
            self.loop.settle()
            if caller.hold is not None:
                self.loop.call(caller.member.locks.release, caller.hold)
        self.settled()
        for member in self.members:
            if member.live:
                assert (member.locks._holds, member.locks._count) == ({}, 0)
                assert (member.locks._requests, member.locks.lines._lines) == ({}, {})
        assert (self.database.rows.grants, self.database.rows.tickets) == ({}, {})
        current = self.database.current.items()
        left = [b for m, b in current if m in self.database.sessions and +b.advisory]
        assert left == []
        for member in self.members:
            member.running.cancel()
        self.loop.settle()
        self.loop.close()


LocksMachine.TestCase.settings = machine_settings(100, 25)
TestLocks = LocksMachine.TestCase


def test_a_ring_that_comes_before_the_answer_of_a_try_under_way_is_not_lost():
    machine = LocksMachine()
    machine.begin(False)
    machine.acquire(0, [Wanted(KEYS[0])], 0.0)
    machine.carry()
    machine.acquire(1, [Wanted(KEYS[0])], None)
    machine.push(machine.members[1], 4)  # a ticket, and the second try is refused; nobody knows yet
    machine.release(0, again=False)
    machine.push(machine.members[0], 3)
    machine.ring(0)
    machine.who_waits_is_in_somebodys_way_once_all_is_quiet()
    assert machine.asking() == []
    machine.teardown()

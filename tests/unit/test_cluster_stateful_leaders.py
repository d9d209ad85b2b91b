"""Who leads what, on clocks that go at different rates, over a server that answers late.

The memberships are the real ones: lock session, view, watch, placement, leaders. Members join,
leave, die, freeze and are cut off, answers are late or lost, nobody hears a ring, operators drain,
pin, weigh and ask to resign. At no instant do two work on one leadership while both trust their
leases; terms rise; and once all is well, everything is soon led from where it belongs.
"""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from unit.simulated_cluster import LEASE, TICK_S, Life, MemberRow, SimulatedCluster
from unit.virtual import machine_settings

from engine_pg.cluster.placement import unsettled
from engine_pg.cluster.view import View

NAMES = ["a", "b", "c", "d"]
NODES = ["node0", "node1", "node2"]
RATES = st.floats(0.951, 1.049)
ENDED_S = 3 * LEASE.ttl_s  # until all who do not renew are ended, and those have come back
SETTLED_S = 5.0  # then until everything is where it belongs: a view stands for 1 s first
places = st.integers(0, 2)
names = st.sampled_from(NAMES)


class LeadersMachine(RuleBasedStateMachine):
    @initialize(
        rates=st.tuples(RATES, RATES, RATES),
        weights=st.tuples(*[st.sampled_from([1.0, 1.0, 2.0, 0.0])] * 3),
        unknown=st.sets(st.tuples(places, names), max_size=2),
    )
    def begin(self, rates, weights, unknown) -> None:
        self.cluster = SimulatedCluster(NAMES)
        self.ids = iter(range(1, 1 << 30))
        self.terms = dict.fromkeys(NAMES, 0)
        self.began: dict[tuple[str, int], UUID] = {}
        self.lives: list[Life] = []
        for place, node in enumerate(NODES):
            offers = [name for name in NAMES if (place, name) not in unknown]
            self.lives.append(self.born(node, rates[place], weights[place], offers))

    def born(self, node: str, rate: float, weight: float, offers: list[str]) -> Life:
        member = UUID(int=next(self.ids))
        return Life(self.cluster, member, node, rate=rate, weight=weight, offers=offers)

    # What befalls them

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 2.0, 4.0, 6.0]))
    def pass_time(self, seconds):
        for _ in range(round(seconds / TICK_S)):
            self.tick()

    @rule(place=places)
    def kill(self, place):
        self.lives[place].die()
        self.reborn(place)

    @rule(place=places, instead=st.booleans())
    def leave(self, place, instead):
        """Leave well; the next life of the node is here before, or after."""
        life = self.lives[place]
        if life.frozen or life.running.done():
            return
        life.leaving = True
        leaving = life.loop.create_task(life.leave())
        if instead:
            self.reborn(place)
        self.until(lambda: leaving.done() and life.running.done(), 10.0, "it does not leave")
        assert leaving.exception() is None
        life.die()
        if not instead:
            self.reborn(place)

    def reborn(self, place: int) -> None:
        old = self.lives[place]
        self.lives[place] = self.born(old.node, old.rate, old.weight, old.offers)

    @rule(place=places)
    def freeze(self, place):
        self.lives[place].frozen = True

    @rule(place=places)
    def thaw(self, place):
        self.lives[place].frozen = False

    @rule(
        place=places, out_s=st.sampled_from([0.01, 0.3, 1.2]), back_s=st.sampled_from([0.01, 1.2])
    )
    def be_slow(self, place, out_s, back_s):
        """Let what it sees be old, and what it asks arrive late."""
        self.lives[place].out_s, self.lives[place].back_s = out_s, back_s

    @rule(place=places)
    def cut(self, place):
        if self.lives[place].connection is not None:
            self.lives[place].connection.cut()

    @rule(place=places, ending_s=st.sampled_from([0.0, 0.4, 3.0]))
    def end_slowly(self, place, ending_s):
        self.lives[place].ending_s = ending_s

    @rule(deaf=st.booleans())
    def lose_rings(self, deaf):
        self.cluster.deaf = deaf

    # What operators order

    @rule(place=places, on=st.booleans())
    def drain(self, place, on):
        self.cluster.drain(NODES[place], on=on)

    @rule(place=places, weight=st.sampled_from([0.0, 0.5, 1.0, 4.0]))
    def weigh(self, place, weight):
        life = self.lives[place]
        row = self.cluster.members.get(life.member_id)
        if row is not None and row.offers is not None:
            life.weight = weight
            self.cluster.changed(row, weight=weight)

    @rule(name=names, node=st.sampled_from([None, *NODES]))
    def pin(self, name, node):
        led = self.cluster.leaders[name]
        self.cluster.changed(led, pinned=node, avoid=led.avoid if node is None else None)
        self.cluster.ring(["members"])

    @rule(name=names)
    def ask_to_resign(self, name):
        led = self.cluster.leaders[name]
        if led.member is not None:
            self.cluster.changed(led, avoid=led.member)
            self.cluster.ring(["members"])

    # What must come of it

    @rule()
    def settle(self):
        """Heal everything: all is soon led, by whom the orders allow, and worked on there."""
        self.cluster.deaf = False
        for life in self.lives:
            life.frozen = False
            life.out_s = life.back_s = 0.01
            life.ending_s = min(life.ending_s, 0.4)
        self.until(self.together, ENDED_S, "members are not those that live")
        self.until(lambda: not self.misplaced(), SETTLED_S, self.misplaced)
        wins = len(self.cluster.wins)
        self.pass_time(2.0)
        assert len(self.cluster.wins) == wins, "leaderships move though nothing happens"

    def together(self) -> bool:
        live = self.cluster.live()
        declared = {member for member, row in live.items() if row.offers is not None}
        return declared == set(live) == {life.member_id for life in self.lives}

    def misplaced(self) -> str:
        """Tell what is not led from where it may be, or led and not worked on."""
        live = self.cluster.live()
        wrong = []
        for name, led in self.cluster.leaders.items():
            able = {m: row for m, row in live.items() if not row.draining and row.knows(name)}
            if led.member is None:
                wrong += [f"{name} is vacant"] if able else []
                continue
            at_work = [life.member_id for life in self.lives if name in life.believes]
            if at_work != [led.member]:
                wrong.append(f"{name} is led by {led.member}, {at_work} work")
            if able and led.member not in self.allowed(able, led.avoid, led.pinned):
                wrong.append(f"{name} is led by {led.member}, and should not be")
        view = View()
        view.take(self.cluster.view(""))
        wrong += unsettled(view.leaders.values(), list(view.candidates.values()))
        return ", ".join(wrong)

    def allowed(
        self, able: dict[UUID, MemberRow], avoid: UUID | None, pinned: str | None
    ) -> set[UUID]:
        """Return who may lead: each wish counts only while it leaves somebody."""
        choice = {member for member in able if member != avoid} or set(able)
        choice = {member for member in choice if able[member].node == pinned} or choice
        return {member for member in choice if able[member].weight > 0} or choice

    @rule()
    def everybody_agrees_and_little_moves_in_a_rolling_restart(self):
        self.settle()
        for place in range(3):
            self.cluster.drain(NODES[place], on=False)
        self.settle()
        before, wins = self.leads(), len(self.cluster.wins)
        for place, node in enumerate(NODES):
            self.cluster.drain(node, on=True)
            if any(row.draining for row in self.cluster.live().values()):
                self.settle()
            self.leave(place, False)
            self.settle()
        moved = Counter(name for name, _ in self.cluster.wins[wins:])
        steady = [name for name, led in self.cluster.leaders.items() if led.avoid is None]
        assert all(moved[name] <= 2 for name in steady), f"{moved}"
        after = self.leads()
        assert all(after[name] == before[name] for name in steady), f"{before} became {after}"

    def leads(self) -> dict[str, str | None]:
        members = self.cluster.members
        return {
            n: led.member and members[led.member].node for n, led in self.cluster.leaders.items()
        }

    @rule(place=places)
    def who_dies_is_followed_within_his_lease(self, place):
        """Each of its leaderships is won by the next where it belongs, or soon after by another."""
        self.settle()
        victim = self.lives[place]
        led = [n for n, row in self.cluster.leaders.items() if row.member == victim.member_id]
        others = [life for life in self.lives if life is not victim]
        live = self.cluster.live()
        led = [
            name
            for name in led
            if any(name in o.offers and not live[o.member_id].draining for o in others)
        ]
        self.pass_time(
            LEASE.ttl_s / 0.95 + LEASE.heartbeat_s
        )  # they have been well for long enough
        victim.die()
        leaders = self.cluster.leaders
        bound_s = (LEASE.ttl_s + LEASE.ttl_s / 20) / 0.95 + 0.5
        self.until(
            lambda: all(leaders[n].member not in (None, victim.member_id) for n in led),
            bound_s,
            f"{led} are not taken over",
        )
        self.reborn(place)

    # What always holds

    def until(self, happened, bound_s: float, what) -> None:
        until = self.cluster.truth.now + bound_s
        while not happened():
            assert self.cluster.truth.now < until, what if isinstance(what, str) else what()
            self.tick()

    def tick(self) -> None:
        self.cluster.tick()
        self.nobody_leads_beside_another()
        for place, life in enumerate(self.lives):
            if life.running.done() and not (life.over or life.leaving):
                assert life.running.exception() is None
                life.die()  # ended by another: it comes back
                self.reborn(place)

    @invariant()
    def nobody_leads_beside_another(self):
        if not hasattr(self, "lives"):
            return
        led = [(n, life) for life in self.cluster.lives for n in life.believes]
        twice = [n for n, times in Counter(name for name, _ in led).items() if times > 1]
        assert not twice, f"{twice} are led twice"
        for life in self.cluster.lives:
            for name, term in life.began:
                assert self.began.setdefault((name, term), life.member_id) == life.member_id
                assert term >= self.terms[name], f"{name} was led under a higher term before"
                self.terms[name] = term
            life.began.clear()
            assert life.loop.failures == []
        self.cluster.lives = [life for life in self.cluster.lives if not life.over]

    def teardown(self) -> None:
        for life in getattr(self, "lives", ()):
            if not life.over:
                life.die()


LeadersMachine.TestCase.settings = machine_settings(30, 15)
TestLeaders = LeadersMachine.TestCase


@pytest.mark.parametrize("phase", range(8))
def test_a_death_is_noticed_within_the_lease_and_two_looks(phase):
    """Even right after a renewal, at whatever distance from those of the others."""
    machine = LeadersMachine()
    machine.begin(rates=(1.0, 1.0, 1.0), weights=(1.0, 1.0, 1.0), unknown=set())
    machine.pass_time(phase * LEASE.heartbeat_s / 8)
    machine.kill(1)
    machine.settle()
    machine.pass_time(LEASE.ttl_s)
    victim = machine.lives[1]
    row = machine.cluster.members[victim.member_id]
    renewal = row.renewal
    machine.until(lambda: row.renewal > renewal, LEASE.ttl_s, "it does not renew")
    victim.die()
    looks_s = 2 * LEASE.ttl_s / 20
    machine.until(lambda: not row.live, LEASE.ttl_s + looks_s, "it is not ended")
    machine.teardown()

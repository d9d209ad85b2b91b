"""Who believes in itself and who is taken for dead, on clocks that go at different rates.

Members renew, commits and their answers arrive when they like, all commits stall, members freeze
(nothing of theirs happens) and die; an ending is a compare-and-swap on the counter, as in the
database. Nobody is ended while it believes in itself; nobody is ended to whom nothing happened but
a stall of all; and who is dead is ended in bounded time once an observer is well.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from unit.virtual import VirtualClock, machine_settings

from engine_pg.cluster.members import Overdue, Watch
from engine_pg.cluster.trust import Trust
from engine_pg.errors import MemberEnded
from engine_pg.ids import new_id

TTL_S, MARGIN_S, HEARTBEAT_S = 5.0, 0.5, 0.5
SLACK_S = 0.5
RATES = st.floats(0.951, 1.049)  # as far apart as the margin allows, and hardly less
WELL_S = TTL_S / 0.95 + 3 * HEARTBEAT_S
places = st.integers(0, 2)
some = st.sets(places, min_size=1).map(sorted)


@dataclass
class Renewal:
    sent_at: float  # by the sender's clock
    counters: dict[str, int] | None = None  # what the commit saw; None: not committed


class Rated(VirtualClock):
    """A clock that starts anywhere and goes at its own rate."""

    def __init__(self, truth: VirtualClock, rate: float) -> None:
        self._truth, self._rate, self._offset = truth, rate, truth.now * 7 * rate

    def __call__(self) -> float:
        return self._truth.now * self._rate - self._offset + 5000.0


class Life:
    def __init__(self, truth: VirtualClock, rate: float) -> None:
        self.member_id = new_id()
        self.clock = Rated(truth, rate)
        self.trust = Trust(ttl_s=TTL_S, margin_s=MARGIN_S, clock=self.clock)
        self.watch = Watch(self.member_id, ttl_s=TTL_S, clock=self.clock)
        self.trust.trust_from(self.clock())
        self.flying: Renewal | None = None
        self.dead = False
        self.committed_at = truth.now  # by the truth: nothing of it has been on its way since
        self.passed_at: float | None = None  # others' commits came through while its own did not
        self.blamed = False


class WatchMachine(RuleBasedStateMachine):
    @initialize(rates=st.tuples(RATES, RATES, RATES))
    def begin(self, rates) -> None:
        self.truth = VirtualClock()
        self.counters: dict[str, int] = {}
        self.lives = [self.born(rate) for rate in rates]

    def born(self, rate: float) -> Life:
        life = Life(self.truth, rate)
        self.counters[str(life.member_id)] = 0
        return life

    # What happens to one member

    @rule(place=places)
    def send(self, place):
        life = self.lives[place]
        if life.flying is None and not life.dead:
            life.flying = Renewal(life.clock())

    @rule(place=places)
    def commit(self, place):
        life = self.lives[place]
        if life.flying is None or life.flying.counters is not None:
            return
        if str(life.member_id) in self.counters:
            self.counters[str(life.member_id)] += 1
        life.flying.counters = dict(self.counters)
        life.committed_at, life.passed_at = self.truth.now, None
        for other in self.lives:
            if other.flying is not None and other.flying.counters is None:
                other.passed_at = self.truth.now if other.passed_at is None else other.passed_at

    @rule(place=places)
    def answer(self, place):
        life = self.lives[place]
        if life.dead or life.flying is None or life.flying.counters is None:
            return
        renewal, life.flying = life.flying, None
        if str(life.member_id) not in renewal.counters:
            life.trust.end(MemberEnded("taken for dead"))
            self.lives[place] = self.born(life.clock._rate)
            return
        life.trust.trust_from(renewal.sent_at)
        life.watch.renewed(renewal.sent_at, life.clock())
        seen = renewal.counters.items()
        life.watch.observed([{"member_id": m, "renewal": n, "ttl_s": TTL_S} for m, n in seen])
        self.bury(place)

    @rule(place=places)
    def bury(self, place):
        life = self.lives[place]
        if life.dead or str(life.member_id) not in self.counters:
            return
        for overdue in life.watch.overdue():
            self.end(overdue)

    def end(self, overdue: Overdue) -> None:
        victim = str(overdue.member_id)
        if self.counters.get(victim) != overdue.renewal:
            return
        life = next(each for each in self.lives if each.member_id == overdue.member_id)
        assert life.dead or not life.trust.trusted, "ended while it believed in itself"
        assert life.blamed or life.dead, "ended, and nothing befell it but a stall of all"
        del self.counters[victim]

    @rule(place=places, rate=RATES)
    def die_or_be_replaced(self, place, rate):
        life = self.lives[place]
        if str(life.member_id) in self.counters:
            life.dead = True
        else:
            self.lives[place] = self.born(rate)

    # What happens to all

    @rule(seconds=st.sampled_from([0.1, 0.3, 1.0, 1.5, 4.0, 5.5]))
    def sleep(self, seconds):
        self.truth.now += seconds
        for life in self.lives:
            idle = life.flying is None or life.flying.counters is not None
            since = life.committed_at + HEARTBEAT_S if idle else life.passed_at
            life.blamed |= since is not None and self.truth.now > since + SLACK_S

    @rule(who=some, beats=st.integers(1, 14))
    def go_well(self, who, beats):
        """Some renew in time for a while; of the others nothing is heard."""
        for _ in range(beats):
            self.beat(who)

    @rule(who=some, seconds=st.sampled_from([1.0, 2.0, 4.6, 5.2, 11.0]), data=st.data())
    def stall_all_commits(self, who, seconds, data):
        """All that was sent waits, and then comes through in any order."""
        for place in who:
            self.answer(place)
            self.send(place)
        self.sleep(seconds)
        for place in data.draw(st.permutations(who), label="order"):
            self.bury(place)
            self.commit(place)
            self.answer(place)
            self.sleep(0.1)

    @precondition(lambda self: any(life.dead for life in self.lives))
    @rule()
    def the_dead_are_ended_once_somebody_has_been_well(self):
        well = [n for n, life in enumerate(self.lives) if not life.dead]
        if not well:
            return
        until = self.truth.now + WELL_S
        while self.truth.now < until:
            self.beat(well)
        if not all(str(self.lives[n].member_id) in self.counters for n in well):
            return  # one of them was ended before, has learnt it, and was well for less than a ttl
        assert not [e for e in self.lives if e.dead and str(e.member_id) in self.counters]

    def beat(self, who) -> None:
        self.sleep(HEARTBEAT_S)
        for place in who:
            for step in (self.bury, self.commit, self.answer, self.send, self.commit, self.answer):
                step(place)

    @invariant()
    def the_undertaker_is_awake_when_somebody_is_due(self):
        for life in getattr(self, "lives", ()):
            assert life.watch.next_due_s() == 0.0 or life.watch.overdue() == []


WatchMachine.TestCase.settings = machine_settings(120, 25)
TestWatch = WatchMachine.TestCase

"""The lines in front of keys under any sequence of entering, standing, going ahead and leaving."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from unit.virtual import machine_settings

from engine_pg.cluster.keys import LockKey, Mode, Reason, Wanted
from engine_pg.cluster.lines import Entry, Lines

KEYS = [LockKey("test", name) for name in "abc"]
wishes = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(Mode), min_size=1).map(
    lambda found: tuple(Wanted(key, found[key]) for key in sorted(found))
)


@dataclass
class Told:
    """What the model knows: who is ahead, who stands where."""

    ahead: list[Entry] = field(default_factory=list)
    waiting: list[Entry] = field(default_factory=list)

    def clear(self, entry: Entry) -> bool:
        others = [*self.ahead, *(each for each in self.waiting if each.place < entry.place)]
        return not any(conflict(entry, each) for each in others if each is not entry)

    def is_clear_of_all(self, entry: Entry) -> bool:
        return not any(conflict(entry, each) for each in (*self.ahead, *self.waiting))

    def all_clear(self) -> set[int]:
        return {each.number for each in self.waiting if self.clear(each)}


def conflict(one: Entry, other: Entry) -> bool:
    return any(
        ours.key == theirs.key and ours.conflicts(theirs)
        for ours in one.wanted
        for theirs in other.wanted
    )


class LinesMachine(RuleBasedStateMachine):
    ahead = Bundle("ahead")
    waiting = Bundle("waiting")

    @initialize()
    def begin(self) -> None:
        self.lines = Lines()
        self.told = Told()
        self.numbers = 0
        self.used: set[int] = set()

    def entry(self, wanted: tuple[Wanted, ...]) -> Entry:
        self.numbers += 1
        return Entry(wanted, Reason(), self.numbers)

    @rule(target=ahead, wanted=wishes)
    def enter_or_be_refused(self, wanted):
        entry = self.entry(wanted)
        assert self.lines.enter(entry) == self.told.is_clear_of_all(entry)
        if not self.told.is_clear_of_all(entry):
            return multiple()
        self.told.ahead.append(entry)
        return entry

    @rule(target=waiting, wanted=wishes)
    def enter_or_stand(self, wanted):
        entry = self.entry(wanted)
        if self.lines.enter(entry):
            self.told.ahead.append(entry)
            self.lines.leave(entry)
            self.told.ahead.remove(entry)
            return multiple()
        self.lines.stand(entry)
        self.told.waiting.append(entry)
        return entry

    @rule(target=waiting, entry=consumes(ahead), ticket=st.integers(1, 50))
    def be_refused_under_a_ticket(self, entry, ticket):
        if entry not in self.told.ahead:
            return multiple()
        self.told.ahead.remove(entry)
        return self.stand_under(entry, ticket)

    @rule(entry=waiting, ticket=st.integers(1, 50))
    def learn_the_ticket(self, entry, ticket):
        if entry.ticket is None:
            self.told.waiting.remove(entry)
            self.stand_under(entry, ticket)

    def stand_under(self, entry: Entry, ticket: int) -> Entry:
        entry.ticket = next(n for n in range(ticket, 10_000) if n not in self.used)
        self.used.add(entry.ticket)
        self.lines.stand(entry)
        self.told.waiting.append(entry)
        return entry

    @rule(target=ahead, entry=waiting)
    def go_ahead(self, entry):
        if entry not in self.told.waiting:
            return multiple()
        may = self.told.clear(entry)
        assert self.lines.advance(entry) == may
        if not may:
            return multiple()
        self.told.waiting.remove(entry)
        self.told.ahead.append(entry)
        return entry

    @rule(entry=consumes(ahead))
    def leave_from_ahead(self, entry):
        if entry in self.told.ahead:
            self.leave(entry, self.told.ahead)

    @rule(entry=consumes(waiting))
    def give_up(self, entry):
        if entry in self.told.waiting:
            self.leave(entry, self.told.waiting)

    def leave(self, entry: Entry, place: list[Entry]) -> None:
        before = self.told.all_clear()
        place.remove(entry)
        named = {each.number for each in self.lines.leave(entry)}
        assert named <= {each.number for each in self.told.waiting}
        assert self.told.all_clear() - before <= named, "nobody told one whom nobody precedes now"

    @invariant()
    def nobody_ahead_excludes_another(self):
        if hasattr(self, "told"):
            pairs = [(one, other) for one in self.told.ahead for other in self.told.ahead]
            assert not [pair for pair in pairs if pair[0] is not pair[1] and conflict(*pair)]

    @invariant()
    def whoever_is_in_nobodys_way_is_found_by_a_poll(self):
        if hasattr(self, "told"):
            assert self.told.all_clear() <= {each.number for each in self.lines.first()}

    @invariant()
    def people_are_told_exactly_who_is_in_the_way(self):
        if hasattr(self, "told"):
            everybody = [*self.told.ahead, *self.told.waiting]
            for entry in everybody:
                found = {other.number for _, other, _ in self.lines.in_the_way(entry)}
                assert found == {
                    each.number for each in everybody if each is not entry and conflict(entry, each)
                }

    def teardown(self) -> None:
        if hasattr(self, "told"):
            for entry in [*self.told.ahead, *self.told.waiting]:
                self.lines.leave(entry)
            assert self.lines.first() == []
            assert self.lines._lines == {}, "an empty line stays for ever"


LinesMachine.TestCase.settings = machine_settings(60, 25)
TestLines = LinesMachine.TestCase

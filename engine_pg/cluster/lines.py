"""Who in this process holds, asks for or awaits a key; settled before the database is asked.

Session advisory locks are re-entrant: they do not separate two tasks of one member, and two
requests of one batch do not see each other's grants. So of all requests of this process that
exclude each other, at most one is under way or granted at a time. The others stand in line, by
ticket.

Does not promise: anything about other processes. That is the database's part.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine_pg.cluster.keys import LockKey, Mode, Reason, Wanted

_LAST = 1 << 62


@dataclass(eq=False, slots=True)
class Entry:
    """One request's place: its wishes, its ticket once it has one, its number in the process."""

    wanted: tuple[Wanted, ...]
    reason: Reason
    number: int = 0
    since: float = 0.0
    ticket: int | None = None

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in line: by ticket, those without one last."""
        return (_LAST if self.ticket is None else self.ticket, self.number)


class _Line:
    """Those of one key, once there was more than one of them."""

    __slots__ = ("ahead", "alone", "waiting")

    def __init__(self) -> None:
        self.ahead: list[tuple[Entry, Wanted]] = []
        self.waiting: list[tuple[Entry, Wanted]] = []
        self.alone = (
            0  # of those ahead, how many are exclusive: crowds of shared ones are not asked
        )

    def put(self, entry: Entry, wanted: Wanted) -> None:
        """Put an entry ahead."""
        self.ahead.append((entry, wanted))
        self.alone += wanted.mode is Mode.EXCLUSIVE

    def drop(self, entry: Entry) -> None:
        """Take an entry out, wherever it stands."""
        was = _take(self.ahead, entry)
        self.alone -= was is not None and was.mode is Mode.EXCLUSIVE
        _take(self.waiting, entry)

    def is_free_for(self, wanted: Wanted) -> bool:
        """Tell whether nobody ahead is in the way."""
        return not (self.ahead if wanted.mode is Mode.EXCLUSIVE else self.alone)


class Lines:
    """A line for each key: those ahead (granted or under way), and those who wait, in order.

    Most keys are one entry's and nobody else's: in the place of their line stands that entry.
    """

    def __init__(self) -> None:
        self._lines: dict[LockKey, _Line | Entry] = {}

    def enter(self, entry: Entry) -> bool:
        """Go ahead on all keys, unless somebody here is in the way on one."""
        for wanted in entry.wanted:
            if wanted.key in self._lines:
                line = self._line(wanted.key)
                if not line.is_free_for(wanted) or any(
                    wanted.conflicts(other) for _, other in line.waiting
                ):
                    return False
        self.put_ahead(entry)
        return True

    def put_ahead(self, entry: Entry) -> None:
        """Put an entry ahead without a question: it is granted already."""
        for wanted in entry.wanted:
            if self._lines.setdefault(wanted.key, entry) is not entry:
                self._line(wanted.key).put(entry, wanted)

    def stand(self, entry: Entry) -> None:
        """Take the place in line that the ticket gives, on all keys."""
        for wanted in entry.wanted:
            line = self._line(wanted.key)
            line.drop(entry)
            insort(line.waiting, (entry, wanted), key=lambda each: each[0].place)

    def advance(self, entry: Entry) -> bool:
        """Go ahead from one's place in line, unless somebody here is in the way still."""
        if not self._is_clear(entry):
            return False
        for wanted in entry.wanted:
            line = self._line(wanted.key)
            _take(line.waiting, entry)
            line.put(entry, wanted)
        return True

    def leave(self, entry: Entry) -> list[Entry]:
        """Forget an entry; return those who may stand first in a line of its keys now."""
        first: dict[int, Entry] = {}
        for wanted in entry.wanted:
            line = self._lines.get(wanted.key)
            if line is entry:
                del self._lines[wanted.key]
            if not isinstance(line, _Line):
                continue
            line.drop(entry)
            if not (line.ahead or line.waiting):
                del self._lines[wanted.key]
            for other in _run(line.waiting):
                first[id(other)] = other
        return list(first.values())

    def first(self) -> list[Entry]:
        """Return all who stand first in a line, each once."""
        lines = [line for line in self._lines.values() if isinstance(line, _Line)]
        found = {id(entry): entry for line in lines for entry in _run(line.waiting)}
        return list(found.values())

    def in_the_way(self, entry: Entry) -> list[tuple[str, Entry, Wanted]]:
        """Return who excludes an entry, for people: by a grant, or by waiting (a ticket)."""
        return [
            (what, other, theirs)
            for wanted in entry.wanted
            if wanted.key in self._lines
            for line in [self._line(wanted.key)]
            for what, these in (("grant", line.ahead), ("ticket", line.waiting))
            for other, theirs in these
            if other is not entry and wanted.conflicts(theirs)
        ]

    def _line(self, key: LockKey) -> _Line:
        """Return the line of a key; one entry that has the key to itself is ahead in it."""
        there = self._lines.get(key)
        if isinstance(there, _Line):
            return there
        line = self._lines[key] = _Line()
        if there is not None:
            line.put(there, next(wanted for wanted in there.wanted if wanted.key == key))
        return line

    def _is_clear(self, entry: Entry) -> bool:
        for wanted in entry.wanted:
            line = self._line(wanted.key)
            if not line.is_free_for(wanted):
                return False
            for other, theirs in line.waiting:
                if other is entry:
                    break
                if wanted.conflicts(theirs):
                    return False
        return True


def _take(line: list[tuple[Entry, Wanted]], entry: Entry) -> Wanted | None:
    for place, (other, wanted) in enumerate(line):
        if other is entry:
            del line[place]
            return wanted
    return None


def _run(waiting: Sequence[tuple[Entry, Wanted]]) -> Iterable[Entry]:
    """Yield whom nobody in the line precedes: an exclusive one, or the shared before one."""
    for place, (entry, wanted) in enumerate(waiting):
        if place and wanted.mode is Mode.EXCLUSIVE:
            return
        yield entry
        if wanted.mode is Mode.EXCLUSIVE:
            return

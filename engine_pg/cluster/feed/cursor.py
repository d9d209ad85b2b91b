"""A place in the feed: what a snapshot sees, in one epoch; perhaps half way to a next snapshot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from engine_pg.errors import Invalid

_TEXT: Final = re.compile(r"(\d{1,18})/(\d[\d:,]*)(?:/(\d[\d:,]*)/(\d{1,18}))?", re.ASCII)
_SNAPSHOT: Final = re.compile(r"(\d{1,18}):(\d{1,18}):((?:\d{1,18}(?:,\d{1,18})*)?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Seen:
    """A snapshot: it sees the transactions below `end` that are not `running`."""

    oldest: int
    end: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Seen:
        """Read what PostgreSQL writes; raises `Invalid`."""
        found = _SNAPSHOT.fullmatch(text)
        if found is None:
            raise Invalid(f"{text!r} is no snapshot")
        oldest, end = int(found[1]), int(found[2])
        running = [int(each) for each in found[3].split(",") if each]
        inside = all(oldest <= each < end for each in running)
        if oldest > end or not oldest or not inside or running != sorted(set(running)):
            raise Invalid(f"{text!r} is no snapshot")
        return cls(oldest, end, frozenset(running))

    def covers(self, other: Seen) -> bool:
        """Tell whether this sees all that the other sees."""
        if any(each < other.end and each not in other.running for each in self.running):
            return False
        beyond = sum(each >= self.end for each in other.running)
        return other.end - self.end <= beyond


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader stands: it has what `snapshot` sees.

    With `until` it is on its way there: of what that sees beyond `snapshot`, it has the changes up
    to number `after`.
    """

    epoch_id: int
    snapshot: str
    until: str = ""
    after: int = 0

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read the text form; raises `Invalid`."""
        found = _TEXT.fullmatch(text)
        if found is None:
            raise Invalid(f"{text!r} is no cursor")
        for snapshot in found.group(2, 3):
            if snapshot is not None:
                Seen.parse(snapshot)
        return cls(int(found[1]), found[2], found[3] or "", int(found[4] or 0))

    @override
    def __str__(self) -> str:
        way = f"/{self.until}/{self.after}" if self.until else ""
        return f"{self.epoch_id}/{self.snapshot}{way}"

    @property
    def oldest(self) -> int:
        """The oldest transaction that may not have been seen."""
        return int(self.snapshot.partition(":")[0])

    @property
    def end(self) -> int:
        """The first transaction that can't have been seen."""
        return int((self.until or self.snapshot).split(":")[1])

    def covers(self, other: Cursor) -> bool:
        """Tell whether who stands here has all that one at `other` has."""
        if self.epoch_id != other.epoch_id:
            return False
        if other.until and (self.snapshot, self.until) == (other.snapshot, other.until):
            return self.after >= other.after
        return Seen.parse(self.snapshot).covers(Seen.parse(other.until or other.snapshot))

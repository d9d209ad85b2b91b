"""What happened when, one JSON line each; all processes of a machine share the clock."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path
from typing import Any

from engine_pg.clock import boottime

Entry = dict[str, Any]


class Journal:
    """Notes entries to a file, each at once."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("a", buffering=1)

    def note(self, what: str, **facts: object) -> None:
        """Write down that something happened just now."""
        self._stream.write(json.dumps({"at": boottime(), "what": what, **facts}) + "\n")


class Journals:
    """Reads what others note, each line once, however often it is asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}
        self._entries: dict[str, dict[str, list[Entry]]] = {}

    def path(self, who: str) -> Path:
        """Return where somebody notes."""
        return self._folder / f"{who}.journal"

    def noted(self, who: str, what: str, *, since: float = 0.0) -> list[Entry]:
        """Return what somebody noted of one kind, from a time on."""
        some = self._caught_up(who).get(what, [])
        return some[bisect_left(some, since, key=lambda entry: entry["at"]) :]

    def _caught_up(self, who: str) -> dict[str, list[Entry]]:
        kinds = self._entries.setdefault(who, defaultdict(list))
        if self.path(who).exists():
            with self.path(who).open("rb") as stream:
                stream.seek(self._read.get(who, 0))
                for line in stream:
                    if not line.endswith(b"\n"):  # it is being written
                        break
                    self._read[who] = self._read.get(who, 0) + len(line)
                    entry: Entry = json.loads(line)
                    kinds[entry["what"]].append(entry)
        return kinds

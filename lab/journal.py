"""What happened when, one JSON line each; all processes of a machine share the clock."""

from __future__ import annotations

import json
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


def entries(path: Path, what: str = "") -> list[Entry]:
    """Return what was noted so far, of one kind or all; a line that is being written is not."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    found: list[Entry] = [json.loads(line) for line in lines if line.endswith("\n")]
    return [entry for entry in found if what in ("", entry["what"])]

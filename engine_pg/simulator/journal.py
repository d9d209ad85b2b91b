"""The journal: every call and every change of a VM, one JSON line each, in one order.

It is the simulated hosts' memory, too: what is not in it did not happen. A record is handed to the
operating system before anybody is told (a killed process loses nothing), and is on disk before a
call that changes something is answered (`durable`; calls that wait together share one flush).

A torn last line is what a power cut leaves behind: nobody was told of it, and opening removes it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, Final, Self

from engine_pg.clock import boottime
from engine_pg.errors import Conflict, Invalid

Record = dict[str, Any]

_TAIL: Final = 64 * 1024


class Reader:
    """Iterates over a journal's records; `torn` tells afterwards of an unfinished last line."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = lines
        self.torn = False

    def __iter__(self) -> Iterator[Record]:
        for number, line in enumerate(self._lines, 1):
            if not line.endswith(b"\n"):
                self.torn = True
                return
            try:
                record = json.loads(line)
            except ValueError as error:
                raise Invalid(f"Line {number} of the journal is no JSON: {error}.") from error
            if not isinstance(record, dict) or not {"seq", "kind"} <= record.keys():
                raise Invalid(f"Line {number} of the journal is no record.")
            yield record


class Journal:
    """The journal of one process, locked against a second one; without a path it forgets all."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file = FileIO(path or os.devnull, "a")
        self._syncing = asyncio.Lock()
        self._synced = 0
        self.sequence = 0
        self.torn_bytes = 0
        if path is not None:
            self._claim(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def records(self) -> Iterator[Record]:
        """Iterate over what earlier processes wrote, and go on numbering after it."""
        if self._path is None:
            return
        with self._path.open("rb") as lines:
            for record in Reader(lines):
                self.sequence = int(record["seq"])
                yield record

    def append(self, kind: str, **fields: object) -> int:
        """Write one record and return its number."""
        self.sequence += 1
        record = {"seq": self.sequence, "at": round(boottime(), 6), "kind": kind} | fields
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(f"The journal {self._path} is full.")
        return self.sequence

    async def durable(self) -> None:
        """Return when everything appended until now would survive a power cut."""
        wanted = self.sequence
        async with self._syncing:
            if self._synced < wanted and self._path is not None:
                covered = self.sequence
                await asyncio.to_thread(os.fsync, self._file.fileno())
                self._synced = covered

    def _claim(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise Conflict(f"Another process writes the journal {path}.") from error
        size = path.stat().st_size
        whole = _whole_lines(path, size)
        self.torn_bytes = size - whole
        if self.torn_bytes:
            self._file.truncate(whole)


def _whole_lines(path: Path, size: int) -> int:
    with path.open("rb") as file:
        end = size
        while end:
            start = max(0, end - _TAIL)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0

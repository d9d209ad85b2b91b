"""What happened, one JSON line each; all processes are of one machine and read one clock.

A line is handed to the operating system before its writer goes on, so a killed process loses none.
An operation is noted when it is called and when it returns; one that never returned is `unknown`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine_pg.clock import boottime

Record = Mapping[str, Any]


@dataclass(slots=True)
class Operation:
    """One operation: what was asked, when, and what came of it."""

    process: str
    op: str
    args: dict[str, Any]
    call: float
    ret: float = float("inf")
    outcome: str = "unknown"
    result: dict[str, Any] = field(default_factory=dict)

    def end(self, outcome: str, **result: Any) -> None:
        self.outcome = outcome
        self.result = result


class History:
    """The history of one process."""

    def __init__(self, path: Path, process: str) -> None:
        self.process = process
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._life = f"{os.getpid()}-{boottime():.3f}"
        self._count = 0

    def note(self, kind: str, **fields: Any) -> float:
        """Write one record and return its time."""
        at = fields.pop("at", None) or boottime()
        record = {"kind": kind, "at": round(at, 6), "process": self.process} | fields
        os.write(self._file, json.dumps(record, separators=(",", ":")).encode() + b"\n")
        return at

    @contextmanager
    def operation(self, op: str, **args: Any) -> Generator[Operation]:
        """Note the call and the return of the block; it says itself how it ended."""
        self._count += 1
        name = f"{self._life}-{self._count}"
        operation = Operation(self.process, op, args, self.note("call", op=op, id=name, args=args))
        try:
            yield operation
        finally:
            self.note("return", id=name, outcome=operation.outcome, result=operation.result)


def load(folder: Path) -> list[Record]:
    """Return the records of all processes in the order of their times."""
    records = []
    for path in sorted(folder.glob("*.jsonl")):
        with path.open() as lines:
            records += [json.loads(line) for line in lines if line.endswith("\n")]
    return sorted(records, key=lambda record: record["at"])


def operations(records: Iterable[Record]) -> list[Operation]:
    """Return the operations in the order of their calls."""
    found: dict[str, Operation] = {}
    for record in records:
        if record["kind"] == "call":
            found[record["id"]] = Operation(
                record["process"], record["op"], record["args"], record["at"]
            )
        elif record["kind"] == "return":
            operation = found[record["id"]]
            operation.ret = record["at"]
            operation.end(record["outcome"], **record["result"])
    return list(found.values())

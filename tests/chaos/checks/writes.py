"""Fencing, and nothing lost: no stale write is committed, no acknowledged one is missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from chaos.checks import Violation
from chaos.history import Operation


def check(
    operations: Iterable[Operation], rows: Sequence[Mapping[str, Any]]
) -> Iterator[Violation]:
    """Compare what was acknowledged with the rows that are there, in the order of each key."""
    chains: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        chains[row["key"]].append(row)
        if row["previous"] is not None and row["token"] < row["previous"]:
            yield Violation(
                "fencing",
                f"a write on {row['key']} under {row['token']} came after {row['previous']}",
            )
        if row["after_end"]:
            what = f"write {row['write_id']} on {row['key']}"
            yield Violation("fencing", f"{what} was committed after its member was ended")
    for key, chain in chains.items():
        if sorted(row["count"] for row in chain) != list(range(1, len(chain) + 1)):
            yield Violation("nothing lost", f"the writes on {key} are not counted without a gap")
    found = {str(row["write_id"]) for row in rows}
    yield from _acknowledged([each for each in operations if each.op == "write"], found)


def _acknowledged(operations: Iterable[Operation], found: set[str]) -> Iterator[Violation]:
    for operation in operations:
        there = operation.args["id"] in found
        if operation.outcome == "ok" and not there:
            yield Violation("nothing lost", f"acknowledged write {operation.args['id']} is lost")
        if operation.outcome == "refused" and there:
            yield Violation("fencing", f"refused write {operation.args['id']} was committed")

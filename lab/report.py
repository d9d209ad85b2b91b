"""The table of many failovers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

_FIGURES: Final = {
    "write_gap_s": "no write acknowledged",
    "writable_s": "until the new primary took writes",
    "resume_s": "from then until work under the locks went on",
    "read_gap_s": "no read of a node answered",
    "whole_s": "from the healing until all followed",
}
_COUNTS: Final = {
    "commands": "commands acknowledged",
    "vms_started": "VMs started, by the hosts' journals",
    "reads": "reads",
    "reads_failed": "reads that failed",
    "lost": "acknowledged writes lost",
}


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures by kind of fault, shortest/median/longest, in Markdown."""
    if not found:
        return "nothing was found\n"
    kinds = list(dict.fromkeys(each["kind"] for each in found))
    rows = [["", *kinds], ["---"] * (len(kinds) + 1)]
    by_kind = [[each for each in found if each["kind"] == kind] for kind in kinds]
    rows.append(["failovers", *(f"{len(each)}" for each in by_kind)])
    for name, title in _FIGURES.items():
        rows.append([f"{title}, s", *(_spread([each[name] for each in some]) for some in by_kind)])
    for name, title in _COUNTS.items():
        rows.append([title, *(f"{sum(each[name] for each in some)}" for some in by_kind)])
    broken = [len([each for each in some if each["violations"]]) for some in by_kind]
    rows.append(["failovers in which a promise broke", *map(str, broken)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    said = [f"- {each['kind']}: {what}" for each in found for what in each["violations"]]
    return "\n".join([*lines, "", *said]) + "\n"


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.1f} / {statistics.median(values):.1f} / {max(values):.1f}"

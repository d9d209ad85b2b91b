"""The report over one run or many: what was done, what came of it, how long things took."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
NOTHING = "| none | | | |"
NEVER = "Not done: a suspended machine; the loss of a disk."


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least such a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def report(results: Sequence[Result]) -> str:
    """Return the report as Markdown."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Sequence[Result]) -> Iterator[str]:
    machine = results[-1]["machine"]
    seeds = ", ".join(str(result["seed"]) for result in results)
    seconds = sum(result["seconds"] for result in results)
    broken = [(result["seed"], each) for result in results for each in result["violations"]]
    yield "# Chaos: faults on purpose, and a judged history"
    yield ""
    yield (
        f"{len(results)} runs, {seconds:g} s of faults in all; seeds {seeds};"
        f" {results[-1]['nodes']} nodes, {results[-1]['workers']} lock clients, a primary and a"
        f" synchronous standby; lease {results[-1]['ttl_s']:g} s."
    )
    yield (
        f"{machine['system']}, {machine['processors']} processors, load {machine['load'][0]:g},"
        f" PostgreSQL {machine['postgresql']}, Python {machine['python']}."
    )
    yield ""
    yield "\n".join(dict.fromkeys(result["machine"]["network"] for result in results))
    yield NEVER
    yield ""
    yield f"**Violations: {len(broken) or 'none'}**"
    yield ""
    yield from (f"- seed {seed}: {what}" for seed, what in broken)
    for part in (_faults, _operations, _handovers, _resumptions, _others):
        yield from part(results)


def _faults(results: Sequence[Result]) -> Iterator[str]:
    faults: Counter[str] = Counter()
    troubles: Counter[str] = Counter()
    varieties: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        faults.update(result["faults"])
        troubles.update(result["troubles"])
        for (kind, variety), count in result["varieties"]:
            varieties[kind][variety] += count
    yield from (
        "",
        f"## Faults: {faults.total()}",
        "",
        "| kind | times | of these |",
        "|---|---|---|",
    )
    for kind, count in sorted(faults.items()):
        told = "; ".join(f"{often} {each}" for each, often in sorted(varieties[kind].items()))
        yield f"| {kind} | {count} | {told} |"
    yield from (f"\n{count} times: {what}" for what, count in troubles.most_common(10))


def _operations(results: Sequence[Result]) -> Iterator[str]:
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        for op, counts in result["operations"].items():
            outcomes[op].update(counts)
    yield from ("", "## Operations", "", "| operation | outcomes |", "|---|---|")
    for op, counts in outcomes.items():
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        yield f"| {op} | {told} |"


def _handovers(results: Sequence[Result]) -> Iterator[str]:
    took: dict[str, list[float]] = defaultdict(list)
    counted: dict[str, list[float]] = defaultdict(list)
    for result in results:
        for each in result["handovers"]:
            took[each["kind"]].append(each["took_s"])
            if each["counts"]:
                counted[each["kind"]].append(each["took_s"])
    yield from ("", "## Handovers of leaderships, from the fault", "")
    yield "| fault | all | p50 | p99 | with well survivors | p50 | p99 |"
    yield "|---|---|---|---|---|---|---|"
    for kind in sorted(took):
        yield f"| {kind} | {_spread(took[kind])} | {_spread(counted[kind])} |"
    nodes = [each for result in results for each in result["node_takeovers"]]
    for name in ("leaderships_s", "commands_s"):
        values = [each[name] for each in nodes]
        if values:
            yield f"| node killed, all its {name.removesuffix('_s')} | {_spread(values)} | | | |"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "0 | | "
    return f"{len(values)} | {quantile(values, 0.5):.3f} s | {quantile(values, 0.99):.3f} s"


def _resumptions(results: Sequence[Result]) -> Iterator[str]:
    first: dict[str, list[float]] = defaultdict(list)
    everybody: dict[str, list[float]] = defaultdict(list)
    for result in results:
        for each in result["resumptions"]:
            first[each["kind"]].append(each["first_s"])
            everybody[each["kind"]].append(each["all_s"])
    yield from ("", "## Work goes on, from the first acknowledged commit", "")
    yield "| outage | times | first p50 | first p99 | everybody p50 | everybody p99 |"
    yield "|---|---|---|---|---|---|"
    for kind in sorted(first):
        rest = _spread(everybody[kind]).partition(" | ")[2]
        yield f"| {kind} | {_spread(first[kind])} | {rest} |"


def _others(results: Sequence[Result]) -> Iterator[str]:
    yield from ("", "## Other figures", "")
    waits = [result["longest_wait_s"] for result in results]
    yield f"- longest wait for a lock while nothing was wrong: {max(waits):.2f} s"
    shares = [f"{taken} of {all_}" for result in results for taken, all_ in result["shares"]]
    yield f"- leaderships that a newcomer took: {', '.join(shares) or 'nobody came'}"
    for name in ("requests", "acknowledged", "succeeded", "failed", "unknown", "commands_lost"):
        values = [result["figures"].get(name, 0) for result in results]
        yield f"- API load, {name.replace('_', ' ')}: {sum(values):g}"
    starts = sum(result["figures"].get("vms_started", 0) for result in results)
    yield f"- VM starts in the hosts' journals: {starts:g}"

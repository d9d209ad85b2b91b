"""Exclusion: no two holders act under conflicting grants of one key at once, by the witness.

An act is at work from its receipt for as long as it takes. One that was received after its holder
had stopped believing in itself was held up on its way (its sender was frozen between the last check
and the call): it is late. The witness's gate keeps late calls in the order of tokens; they excuse
an overlap with a newer token and nothing else. Whoever checked past `trusted_until` is not excused
at all (that is fencing).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from chaos.checks import Violation

Act = Mapping[str, Any]


def late(act: Act) -> bool:
    """Say whether an act was received when its holder had stopped believing in itself."""
    return act["at"] > act["trusted_until"]


def check(acts: Iterable[Act]) -> Iterator[Violation]:
    """Yield what is wrong with the acts of a witness, given in the order of receipt."""
    at_work: dict[str, list[Act]] = {}
    for act in acts:
        if act["checked"] > act["trusted_until"]:
            yield Violation("fencing", f"{_told(act)} began past trusted_until")
        if not act["done"]:
            if not late(act):
                yield Violation("exclusion", f"{_told(act)} was refused: a newer token had acted")
            continue
        rivals = [each for each in at_work.get(act["key"], []) if each["until"] > act["at"]]
        for rival in rivals:
            if _conflict(rival, act) and not _excused(rival, act):
                yield Violation(
                    "exclusion", f"{_told(rival)} and {_told(act)} were at work at once"
                )
        at_work[act["key"]] = [*rivals, act]


def _conflict(one: Act, other: Act) -> bool:
    return one["owner"] != other["owner"] and "exclusive" in (one["mode"], other["mode"])


def _excused(earlier: Act, later: Act) -> bool:
    return late(earlier) and later["token"] > earlier["token"]


def _told(act: Act) -> str:
    return (
        f"{act['mode']} act on {act['key']} under {act['token']} by {act['member'][:8]}"
        f" at {act['at']:.3f}"
    )

"""Which faults, in which order, on whom, for how long: drawn from a seed and from nothing else.

Kinds are drawn like cards: first one of each, then the rest of a deck in which the frequent ones
lie more than once, and so on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

ON_PROCESSES = (
    "kill",
    "freeze",
    "stop",
    "cut",
    "cut one way",
    "isolate",
    "slow",
    "lossy",
    "twin",
)
ON_CLOCKS = ("clock jump",)
ON_DATABASE = (
    "terminate",
    "restart",
    "crash",
    "failover",
    "stall",
    "standby away",
    "exhaust",
    "full disk",
    "long writer",
    "break lock",
)
KINDS = (*ON_PROCESSES, *ON_CLOCKS, *ON_DATABASE, "join")
AGAIN: Mapping[str, int] = {
    "kill": 2,
    "freeze": 2,
    "cut": 1,
    "cut one way": 1,
    "terminate": 2,
    "failover": 2,
}
CALM = ("kill", "freeze", "cut", "isolate", "stop", "join")
CALM_S = 2.7  # longer than a lease and a bit: the others were well when it came
ROLES = ("lock session", "doorbell", "pool", "worker", "any")
OF_THE_DATABASE = 0.4  # of the jumps
JUMPS_S = (-86400, -3600, 3600, 86400)  # each further from any other than a run lasts
OLD_PRIMARY = ("frozen", "cut off", "dead", "alive")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its kind, whom it befalls, for how long, the pause before it, and details."""

    number: int
    kind: str
    target: str
    length_s: float
    pause_s: float
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        more = "".join(f", {name} {value}" for name, value in self.details.items())
        return f"{self.number:3} {self.kind} {self.target} {self.length_s:.2f} s{more}"


def schedule(
    seed: int,
    nodes: Sequence[str],
    workers: Sequence[str],
    *,
    longest_s: float = 20.0,
    kinds: Sequence[str] = KINDS,
) -> Iterator[Fault]:
    """Yield faults for ever."""
    dice = random.Random(f"faults/{seed}")
    for number, kind in enumerate(_cards(dice, kinds), 1):
        yield Fault(
            number,
            kind,
            _target(dice, kind, nodes, workers),
            round(_length_s(dice, kind, longest_s), 3),
            round(CALM_S if kind in CALM and dice.random() < 0.6 else dice.uniform(0.3, 1.5), 3),
            _details(dice, kind),
        )


def _cards(dice: random.Random, kinds: Sequence[str]) -> Iterator[str]:
    while True:
        for deck in (list(kinds), [kind for kind in kinds for _ in range(AGAIN.get(kind, 0))]):
            dice.shuffle(deck)
            yield from deck


def _target(dice: random.Random, kind: str, nodes: Sequence[str], workers: Sequence[str]) -> str:
    if kind == "join":
        return "newcomer"
    if kind in ON_CLOCKS and dice.random() < OF_THE_DATABASE:
        return "database"
    if kind in ON_DATABASE and kind != "terminate":
        return "database"
    return dice.choice(workers if dice.random() < 0.6 or not nodes else nodes)


def _length_s(dice: random.Random, kind: str, longest_s: float) -> float:
    low, high = {
        "kill": (0.3, 5.0),
        "stop": (0.3, 2.0),
        "freeze": (0.1, longest_s),
        "stall": (0.2, 4.0),
        "standby away": (0.3, 4.0),
        "failover": (0.1, 2.5),
        "exhaust": (0.3, 1.5),
        "full disk": (1.0, 4.0),
        "long writer": (2.0, 5.0),
        "clock jump": (2.5, 6.0),  # longer than a lease, for those that are cut off
        "twin": (3.0, 6.0),
        "join": (8.0, 10.0),
        "slow": (1.0, 5.0),
        "lossy": (1.0, 5.0),
    }.get(kind, (0.3, 6.0))
    return math.exp(dice.uniform(math.log(low), math.log(high)))


def _details(dice: random.Random, kind: str) -> dict[str, Any]:
    reset = dice.random() < 0.5
    drawn: dict[str, dict[str, Any]] = {
        "cut": {"reset": reset},
        "cut one way": {"way": dice.choice(("up", "down")), "reset": reset},
        "slow": {"delay_s": round(dice.uniform(0.001, 0.25), 3)},
        "lossy": {"loss": round(dice.uniform(0.02, 0.25), 3)},
        "terminate": {"role": dice.choice(ROLES)},
        "clock jump": {"by_s": dice.choice(JUMPS_S), "cut": dice.random() < 0.75},
        "full disk": {
            "of": dice.choice(("primary", "primary", "standby")),
            "by": dice.choice(("tables", "log")),
            "room_kb": dice.choice((0, 64, 1024)),
        },
        "standby away": {"way": dice.choice(("both", "up", "down"))},
        "failover": {"old": dice.choice(OLD_PRIMARY)},
    }
    return drawn.get(kind, {})

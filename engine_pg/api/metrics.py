"""Prometheus text, from a registry small enough to read at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one metric."""

    name: str
    labels: Labels
    value: float


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    escaped = ((key, value.replace("\\", "\\\\").replace('"', '\\"')) for key, value in labels)
    return (
        "{"
        + ",".join('{}="{}"'.format(key, value.replace("\n", "\\n")) for key, value in escaped)
        + "}"
    )


def exposition(kind: str, name: str, about: str, samples: Iterable[Sample]) -> Iterable[str]:
    """Yield the lines of one metric."""
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for sample in samples:
        yield f"{sample.name}{_labels(sample.labels)} {sample.value:g}"


@dataclass(slots=True)
class Counter:
    """Something that only rises, by labels."""

    name: str
    about: str
    label_names: Sequence[str]
    values: dict[tuple[str, ...], float] = field(default_factory=dict[tuple[str, ...], float])

    def add(self, *labels: str, by: float = 1) -> None:
        """Raise the value under these labels."""
        self.values[labels] = self.values.get(labels, 0) + by

    def lines(self) -> Iterable[str]:
        """Yield the lines of the exposition."""
        samples = (
            Sample(self.name, tuple(zip(self.label_names, labels, strict=True)), value)
            for labels, value in sorted(self.values.items())
        )
        return exposition("counter", self.name, self.about, samples)


@dataclass(slots=True)
class Histogram:
    """How long something took, by one label."""

    name: str
    about: str
    label_name: str
    counts: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    sums: dict[str, float] = field(default_factory=dict[str, float])

    def observe(self, label: str, seconds: float) -> None:
        """Count one duration."""
        counts = self.counts.setdefault(label, [0] * (len(_BUCKETS_S) + 1))
        for number, bound in enumerate(_BUCKETS_S):
            if seconds <= bound:
                counts[number] += 1
        counts[-1] += 1
        self.sums[label] = self.sums.get(label, 0) + seconds

    def lines(self) -> Iterable[str]:
        """Yield the lines of the exposition."""
        return exposition("histogram", self.name, self.about, self._samples())

    def _samples(self) -> Iterable[Sample]:
        for label, counts in sorted(self.counts.items()):
            own = ((self.label_name, label),)
            for bound, count in zip((*_BUCKETS_S, float("inf")), counts, strict=True):
                text = "+Inf" if bound == float("inf") else f"{bound:g}"
                yield Sample(f"{self.name}_bucket", (*own, ("le", text)), count)
            yield Sample(f"{self.name}_sum", own, self.sums[label])
            yield Sample(f"{self.name}_count", own, counts[-1])


class Metrics:
    """What this node counts about its API."""

    def __init__(self) -> None:
        self.requests = Counter(
            "engine_api_requests_total", "Requests answered.", ("method", "route", "status")
        )
        self.latency = Histogram(
            "engine_api_request_seconds", "Time from request to answer.", "route"
        )

    def lines(self) -> Iterable[str]:
        """Yield the lines of the exposition."""
        yield from self.requests.lines()
        yield from self.latency.lines()

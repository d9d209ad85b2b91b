"""The judge: reads a journal of simulated hosts and names what must never have happened.

- **double run**: one VM started while it runs, here or on another host;
- **double creation**: two successful creations of one VM without a stop between them;
- **stale call**: a call that changes something was let act although its host had accepted a newer
  token, or although a holder of a newer one had already acted on any host (keys are global);
- **overlap**: two such calls were at work at the same time on one VM, or under conflicting grants
  of one key.

Order is that of the journal, never of clocks. A call is at work from the moment the gate let it act
to the end of its work; a call that a fault still holds back, and one whose answer a fault holds, is
not. Reads never violate anything: a successor's first question may well meet the last call of its
predecessor, and it is what closes the gate behind it.

One overlap is excused: a late call, held up for longer than any takeover needs, that slips in right
before its successor's. Its tokens rise, so the gate has kept them in order.

Does not promise: to tell a holder that never asks a host twice from one that was replaced; what the
hosts were never told of cannot be judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from engine_pg.errors import Invalid
from engine_pg.simulator.journal import Record

_Grant = Mapping[str, Any]
Kind = Literal["double run", "double creation", "stale call", "overlap"]

TAKEOVER_S: Final = 0.2
"""No lock changes hands faster than this after its holder made a call."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never happen, with the records that prove it."""

    kind: Kind
    what: str
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a journal contains, and what is wrong with it."""

    counts: Counter[str]
    violations: list[Violation] = field(default_factory=list[Violation])

    @property
    def clean(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.violations


class _Watcher(Protocol):
    def see(self, record: Record) -> Iterator[Violation]: ...


def judge(records: Iterable[Record]) -> Verdict:
    """Judge a history; `Invalid` when it is incomplete or not ours."""
    verdict = Verdict(Counter())
    watchers: list[_Watcher] = [_DoubleRun(), _DoubleCreation(), _StaleCall(), _Overlap()]
    previous: int | None = None
    for record in records:
        try:
            sequence = int(record["seq"])
            if previous is not None and sequence != previous + 1:
                raise Invalid(f"Records between {previous} and {sequence} are missing.")
            previous = sequence
            verdict.counts.update(_counted(record))
            for watcher in watchers:
                verdict.violations.extend(watcher.see(record))
        except (KeyError, TypeError, ValueError) as error:
            raise Invalid(f"Record {record.get('seq')} is not understood: {error!r}.") from error
    return verdict


class _DoubleRun:
    def __init__(self) -> None:
        self._running: dict[str, dict[int, Record]] = {}

    def see(self, record: Record) -> Iterator[Violation]:
        match record["kind"]:
            case "vm_started":
                running = self._running.setdefault(record["vm"], {})
                if running:
                    hosts = ", ".join(str(host) for host in sorted(running))
                    what = f"VM {record['vm']} was started on host {record['host']}"
                    yield Violation(
                        "double run",
                        f"{what} while it ran on host {hosts}",
                        (*running.values(), record),
                    )
                running[record["host"]] = record
            case "vm_stopped":
                self._running.get(record["vm"], {}).pop(record["host"], None)
            case _:
                pass


class _DoubleCreation:
    """Knows of each VM its last successful creation, and how many stops came before which call."""

    def __init__(self) -> None:
        self._stops: Counter[str] = Counter()
        self._begun: dict[int, tuple[Record, int]] = {}
        self._created: dict[str, tuple[Record, int]] = {}

    def see(self, record: Record) -> Iterator[Violation]:
        match record["kind"]:
            case "vm_stopped":
                self._stops[record["vm"]] += 1
            case "call_begun" if record["method"] == "VM.create":
                self._begun[record["seq"]] = (record, self._stops[record["vm"]])
            case "call_ended" if record["call"] in self._begun:
                begun, stops = self._begun.pop(record["call"])
                if record["ok"]:
                    yield from self._succeeded(begun, stops)
            case _:
                pass

    def _succeeded(self, begun: Record, stops: int) -> Iterator[Violation]:
        vm = begun["vm"]
        earlier = self._created.get(vm)
        if earlier is not None and earlier[1] == stops:
            what = f"VM {vm} was created twice without a stop between"
            yield Violation("double creation", what, (earlier[0], begun))
        if earlier is None or earlier[0]["seq"] < begun["seq"]:
            self._created[vm] = (begun, stops)


class _Highest:
    """Per key, the records that carried the highest exclusive token and the highest of any."""

    def __init__(self) -> None:
        self._exclusive: dict[str, tuple[int, Record]] = {}
        self._any: dict[str, tuple[int, Record]] = {}

    def overtook(self, grant: _Grant) -> Record | None:
        highest = self._any if grant["mode"] == "exclusive" else self._exclusive
        token, record = highest.get(grant["key"], (grant["token"], None))
        return record if grant["token"] < token else None

    def note(self, record: Record) -> None:
        for grant in record["fence"]:
            self._note(self._any, grant, record)
            if grant["mode"] == "exclusive":
                self._note(self._exclusive, grant, record)

    def _note(self, highest: dict[str, tuple[int, Record]], grant: _Grant, record: Record) -> None:
        if grant["token"] > highest.get(grant["key"], (-1, record))[0]:
            highest[grant["key"]] = (grant["token"], record)


class _StaleCall:
    """A change under a token that a newer one had overtaken.

    A host that checks tokens is overtaken by a question too: it shuts the gate. One that can't
    may still run what its dead caller left in the queue, until the successor acts.
    """

    def __init__(self) -> None:
        self._questions_count = True
        self._accepted: dict[int, _Highest] = {}
        self._acted = _Highest()

    def see(self, record: Record) -> Iterator[Violation]:
        if record["kind"] == "process_started":
            self._questions_count = record.get("fencing") != "none"
        if record["kind"] != "call_begun" or record["refused"]:
            return
        accepted = self._accepted.setdefault(record["host"], _Highest())
        if record["mutating"]:
            yield from self._overtaken(record, accepted)
            self._acted.note(record)
        if self._questions_count:
            accepted.note(record)

    def _overtaken(self, record: Record, accepted: _Highest) -> Iterator[Violation]:
        for grant in record["fence"]:
            newer = accepted.overtook(grant) or self._acted.overtook(grant)
            if newer is not None:
                what = f"{_call(record)} acted under token {grant['token']} of {grant['key']}"
                yield Violation(
                    "stale call", f"{what} after {_call(newer)} showed a newer one", (newer, record)
                )
                return


class _Overlap:
    def __init__(self) -> None:
        self._at_work: dict[int, Record] = {}
        self._by_name: dict[str, dict[int, Record]] = {}

    def see(self, record: Record) -> Iterator[Violation]:
        match record["kind"]:
            case "call_begun" if record["mutating"] and not record["refused"]:
                yield from self._begin(record)
            case "call_ended":
                self._end(record["call"])
            case "process_started":
                self._at_work.clear()
                self._by_name.clear()
            case "host_booted":
                for sequence, call in list(self._at_work.items()):
                    if call["host"] == record["host"]:
                        self._end(sequence)
            case _:
                pass

    def _begin(self, record: Record) -> Iterator[Violation]:
        rivals: dict[int, Record] = {}
        for name in _names(record):
            rivals |= self._by_name.setdefault(name, {})
            self._by_name[name][record["seq"]] = record
        self._at_work[record["seq"]] = record
        for rival in rivals.values():
            why = _conflict(rival, record)
            if why and not _excused(rival, record):
                what = f"{_call(rival)} and {_call(record)} were at work together on {why}"
                yield Violation("overlap", what, (rival, record))

    def _end(self, sequence: int) -> None:
        record = self._at_work.pop(sequence, None)
        for name in _names(record) if record is not None else ():
            del self._by_name[name][sequence]
            if not self._by_name[name]:
                del self._by_name[name]


def _names(record: Record) -> set[str]:
    keys = {f"key {grant['key']}" for grant in record["fence"]}
    return keys if record["vm"] is None else keys | {f"VM {record['vm']}"}


def _conflict(earlier: Record, later: Record) -> str:
    """Return what two calls fight over, or nothing."""
    if earlier["vm"] == later["vm"] is not None:
        return f"VM {later['vm']}"
    for ours, theirs in _contested(earlier, later):
        if ours["token"] != theirs["token"]:
            return f"key {ours['key']}"
    return ""


def _excused(earlier: Record, later: Record) -> bool:
    held_s = earlier["at"] - earlier["received"]
    apart_s = later["received"] - earlier["received"]
    pairs = list(_contested(earlier, later))
    rising = bool(pairs) and all(theirs["token"] > ours["token"] for ours, theirs in pairs)
    return rising and held_s >= TAKEOVER_S and apart_s >= TAKEOVER_S


def _contested(earlier: Record, later: Record) -> Iterator[tuple[_Grant, _Grant]]:
    """Yield the grants of the keys that both calls name, unless both only share them."""
    for ours in earlier["fence"]:
        for theirs in later["fence"]:
            if ours["key"] == theirs["key"] and "exclusive" in (ours["mode"], theirs["mode"]):
                yield ours, theirs


def _call(record: Record) -> str:
    return f"{record['method']} (record {record['seq']}, host {record['host']})"


def _counted(record: Record) -> Iterator[str]:
    kind = str(record["kind"])
    yield kind
    if kind != "call_begun":
        return
    for mark in ("mutating", "refused", "would_be_stale"):
        if record[mark]:
            yield mark
    if record["mutating"] and not record["fence"] and not record["refused"]:
        yield "unfenced"

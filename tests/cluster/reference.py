"""The rules of locks, commands and leaders in plain Python: what PostgreSQL must hold and answer.

Written from the rules, not from the SQL. Tokens and tickets are the database's to draw: they are
taken from its answers, and must rise. A statement that is not committed has changed the advisory
locks, and none of the rows that others see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from engine_pg.cluster.keys import LockKey, Mode, Wanted
from engine_pg.cluster.ops import Asking


@dataclass(frozen=True)
class Granted:
    key: LockKey
    mode: Mode
    member: UUID | None
    command: UUID | None
    held: bool = True
    broken_by: str | None = None


@dataclass(frozen=True)
class Waiting:
    member: UUID
    wanted: tuple[Wanted, ...]


@dataclass(frozen=True)
class Member:
    node: str
    epoch: int
    session: int = 1
    renewal: int = 0
    live: bool = True
    draining: bool = False


@dataclass(frozen=True)
class Led:
    member: UUID | None = None
    term: int = 0
    pinned: str | None = None
    avoid: UUID | None = None


@dataclass(frozen=True)
class Command:
    member: UUID | None = None
    attempt: int = 0
    state: str = "queued"

    @property
    def over(self) -> bool:
        return self.state not in ("queued", "running")


@dataclass
class Rows:
    """The tables, by their keys."""

    grants: dict[int, Granted] = field(default_factory=dict)
    tickets: dict[int, Waiting] = field(default_factory=dict)
    members: dict[UUID, Member] = field(default_factory=dict)
    leaders: dict[str, Led] = field(default_factory=dict)
    commands: dict[UUID, Command] = field(default_factory=dict)

    def copy(self) -> Rows:
        return Rows(**{name: dict(table) for name, table in vars(self).items()})

    def take(self, before: Rows, after: Rows) -> None:
        """Let a transaction that made `after` of `before` commit here."""
        for name, table in vars(self).items():
            old, new = getattr(before, name), getattr(after, name)
            for key in old.keys() - new.keys():
                table.pop(key, None)
            table.update({key: row for key, row in new.items() if old.get(key) != row})

    def change(self, table: dict[Any, Any], rows: Iterable[Any], **how: Any) -> None:
        for key in list(rows):
            table[key] = replace(table[key], **how)

    def mine(self, member: UUID | None) -> list[int]:
        return [token for token, row in self.grants.items() if row.member == member]

    def granted(self, wanted: Wanted) -> list[int]:
        """Return whose grants exclude a wish, whatever the state of their members."""
        return [t for t, row in self.grants.items() if clash(wanted, row.key, row.mode)]

    def awaited(self, wanted: Wanted, ticket: int | None) -> list[int]:
        """Return the tickets before ours that exclude a wish; without one, all came before."""
        return [
            number
            for number, row in self.tickets.items()
            if (ticket is None or number < ticket)
            and any(clash(wanted, each.key, each.mode) for each in row.wanted)
        ]

    def heads(self, keys: Iterable[LockKey]) -> set[UUID]:
        """Return the members who are first in line for some of the keys."""
        return {row.member for _, row in self.first(keys)}

    def first(self, keys: Iterable[LockKey]) -> Iterator[tuple[Wanted, Waiting]]:
        for key in keys:
            for number, row in self.tickets.items():
                for wanted in row.wanted:
                    if wanted.key == key and not self.awaited(wanted, number):
                        yield wanted, row


def clash(wanted: Wanted, key: LockKey, mode: Mode) -> bool:
    return wanted.key == key and Mode.EXCLUSIVE in (wanted.mode, mode)


@dataclass
class Reference:
    """Rows that are committed, advisory locks, and what each statement does to both."""

    rows: Rows = field(default_factory=Rows)
    advisory: dict[int, Counter[tuple[LockKey, Mode]]] = field(default_factory=dict)  # by backend
    epoch: int = 0
    crashed: bool = True
    drawn: int = 0  # the highest token ever
    numbered: int = 0  # the highest ticket ever
    fences: dict[UUID, str | None] = field(default_factory=dict)  # open, and for which leadership

    def begun(self) -> int:
        """Return the epoch in which somebody joins or resumes."""
        self.epoch += self.crashed
        self.crashed = False
        return self.epoch

    # Backends

    def try_(self, pid: int, wanted: Wanted) -> bool:
        for other, locks in self.advisory.items():
            if other != pid and any(n and clash(wanted, *what) for what, n in locks.items()):
                return False
        self.advisory[pid][wanted.key, wanted.mode] += 1
        return True

    def unlock(self, pid: int, key: LockKey, mode: Mode) -> None:
        assert self.advisory[pid][key, mode] > 0, "it would not own this lock"
        self.advisory[pid][key, mode] -= 1

    # Batches: in `rows`, which are a copy until they are committed

    def refusal(self, member: UUID, session: int) -> str | None:
        """Return the error that a batch of this session gets."""
        row = self.rows.members.get(member)
        if row is None or not row.live:
            return "EP002"
        return None if row.session == session else "EP003"

    def release(self, rows: Rows, pid: int, me: UUID, grants: Sequence[tuple[int, LockKey]]):
        for token, _ in grants:
            row = rows.grants.get(token)
            if row is not None and row.member == me:
                del rows.grants[token]
                if row.held:
                    self.unlock(pid, row.key, row.mode)
        return rows.heads(key for _, key in grants)

    def acquire(
        self, rows: Rows, pid: int, me: UUID, asking: Sequence[Asking], acquired: dict[str, Any]
    ) -> set[UUID]:
        """Check what was answered; return whom an undo rings."""
        got = [[e.tries and self.try_(pid, w) for w in e.wanted] for e in asking]
        fine = [
            all(mine) and not any(rows.granted(w) or rows.awaited(w, e.ticket) for w in e.wanted)
            for e, mine in zip(asking, got, strict=True)
        ]
        tokens = iter(acquired["tokens"])
        for each, granted in zip(asking, fine, strict=True):
            for wanted in each.wanted:
                token = next(tokens)
                assert (token is not None) == granted, f"{wanted} granted: {token}, not {granted}"
                if granted:
                    self.draw(token)
                    new = Granted(wanted.key, wanted.mode, me, each.reason.command_id)
                    rows.grants[token] = new
            if granted and each.ticket in rows.tickets and rows.tickets[each.ticket].member == me:
                del rows.tickets[each.ticket]
        return self.refuse(rows, pid, me, asking, got, fine, acquired)

    def refuse(self, rows, pid, me, asking, got, fine, acquired) -> set[UUID]:
        answers = {each["request"]: each for each in acquired["refused"]}
        refused = [n for n, granted in enumerate(fine) if not granted]
        assert sorted(answers) == [n + 1 for n in refused], f"{answers} are not {refused}"
        undone = [
            w for n in refused for w, mine in zip(asking[n].wanted, got[n], strict=True) if mine
        ]
        for wanted in undone:
            self.unlock(pid, wanted.key, wanted.mode)
        for n in refused:
            self.answer(rows, me, asking[n], got[n], answers[n + 1])
        return {
            row.member
            for wanted in undone
            for theirs, row in rows.first([wanted.key])
            if row.member != me and clash(wanted, theirs.key, theirs.mode)
        }

    def answer(self, rows: Rows, me: UUID, each: Asking, got: list[bool], answer: dict) -> None:
        """Check what a refused request is told, and give it its place in line."""
        ticket = each.ticket
        again = each.tries and any(
            bool(rows.granted(w)) if mine else not (rows.granted(w) or rows.awaited(w, ticket))
            for w, mine in zip(each.wanted, got, strict=True)
        )
        if not each.waits:
            assert told(answer["holders"]) == self.in_the_way(rows, each.wanted, None)
        elif ticket is None or ticket not in rows.tickets or rows.tickets[ticket].member != me:
            again = ticket is not None
            if ticket is None:
                ticket = answer["ticket"]
                assert ticket is not None
                assert ticket > self.numbered, "a ticket that was had already"
                self.numbered = ticket
            rows.tickets[ticket] = Waiting(me, each.wanted)
        assert (answer["ticket"], answer["again"]) == (ticket, again), f"{answer} for {each.wanted}"

    def in_the_way(
        self, rows: Rows, wanted: Iterable[Wanted], ticket: int | None
    ) -> Counter[tuple[str, str, int]]:
        return Counter(
            (what, w.key.id, number)
            for w in wanted
            for what, numbers in (("grant", rows.granted(w)), ("ticket", rows.awaited(w, ticket)))
            for number in numbers
        )

    def withdraw(self, rows: Rows, me: UUID, ticket: int, result: dict[str, Any]) -> None:
        row = rows.tickets.get(ticket)
        if row is None or row.member != me:
            assert result["holders"] is None
            return
        del rows.tickets[ticket]
        assert told(result["holders"]) == self.in_the_way(rows, row.wanted, ticket)

    def follow(self, rows: Rows, pid: int, me: UUID) -> None:
        for token, row in rows.grants.items():
            if row.member == me and not row.held:
                held = self.try_(pid, Wanted(row.key, row.mode))
                rows.grants[token] = replace(row, held=held)

    def draw(self, token: int) -> None:
        assert token > self.drawn, f"token {token} is not above {self.drawn}"
        assert token >> 40 == self.epoch, f"token {token} is not of epoch {self.epoch}"
        self.drawn = token

    # Commands

    def claim(self, rows: Rows, pid: int, me: UUID, command: UUID, result: dict[str, Any]) -> None:
        row = rows.commands.get(command)
        if row is None or row.over or row.member is not None:
            assert result == {"ok": False}
            return
        new = Command(me, row.attempt + 1, "running")
        rows.commands[command] = new
        left = [t for t in rows.mine(None) if rows.grants[t].command == command]
        adopted = Counter((each["id"], each["mode"]) for each in result["grants"])
        assert result["claim"]["attempt"] == new.attempt
        assert adopted == Counter((rows.grants[t].key.id, rows.grants[t].mode) for t in left)
        for each in sorted(result["grants"], key=lambda each: each["token"]):
            here = (each["id"], each["mode"])
            old = next(
                t
                for t in left
                if t in rows.grants and (rows.grants[t].key.id, rows.grants[t].mode) == here
            )
            self.draw(each["token"])
            was = rows.grants.pop(old)
            rows.grants[each["token"]] = replace(was, member=me, held=False)
        if left:
            self.follow(rows, pid, me)

    def unclaim(self, rows: Rows, pid: int, me: UUID, command: UUID) -> set[UUID]:
        row = rows.commands.get(command)
        adoptable = row is not None and row.member == me and not row.over
        mine = [t for t in rows.mine(me) if rows.grants[t].command == command]
        for token in mine:
            if (grant := rows.grants[token]).held:
                self.unlock(pid, grant.key, grant.mode)
        if adoptable:
            rows.change(rows.commands, [command], member=None)
            rows.change(rows.grants, mine, member=None, held=False)
            return set()
        keys = [rows.grants.pop(token).key for token in mine]
        return rows.heads(keys)

    def vacate(self, rows: Rows, me: UUID, kept: Iterable[UUID]) -> None:
        """Give back for adopters what a member ran, but for what it goes on with."""
        for token in rows.mine(me):
            command = rows.grants[token].command
            if command is None or command in kept:
                continue
            row = rows.commands.get(command)
            if row is not None and row.over:
                del rows.grants[token]
            else:
                rows.change(rows.grants, [token], member=None, held=False)
        for command, row in rows.commands.items():
            if row.member == me and not row.over and command not in kept:
                rows.commands[command] = replace(row, member=None)

    def sweep(self) -> int:
        rows = self.rows
        idle = [
            token
            for token in rows.mine(None)
            if (c := rows.commands.get(rows.grants[token].command)) is None or c.over
        ]
        for token in idle:
            del rows.grants[token]
        return len(idle)

    # Members

    def resume(self, me: UUID, session: int, pids: tuple[int, int], lists: dict[str, Any]) -> None:
        """Take what the member has from its predecessor's backend to the other; the rest goes."""
        predecessor, pid = pids
        rows = self.rows
        self.advisory.pop(predecessor, None)
        self.vacate(rows, me, lists["commands"])
        known = [(each["name"], each["term"]) for each in lists["leaderships"]]
        lost = [
            n for n, led in rows.leaders.items() if led.member == me and (n, led.term) not in known
        ]
        rows.change(rows.leaders, lost, member=None)
        for token in set(rows.mine(me)) - {each["token"] for each in lists["held"]}:
            del rows.grants[token]
        for ticket in [t for t, row in rows.tickets.items() if row.member == me]:
            if ticket not in lists["tickets"]:
                del rows.tickets[ticket]
        for token in rows.mine(me):
            row = rows.grants[token]
            held = self.try_(pid, Wanted(row.key, row.mode))
            rows.grants[token] = replace(row, held=held)
        renewal = rows.members[me].renewal + 1
        rows.change(rows.members, [me], session=session, renewal=renewal, epoch=self.begun())

    def end(self, member: UUID, pid: int, renewal: int, by: UUID) -> bool | str:
        """Return what an ending answers; it costs the backend and the fence of who is overdue."""
        rows = self.rows
        row = rows.members[member]
        if not row.live or row.renewal != renewal:
            return False
        self.advisory.pop(pid, None)
        self.fences.pop(member, None)
        if by not in rows.members or not (rows.members[by].live or by == member):
            return "EP002"
        rows.change(rows.members, [member], live=False)
        self.vacate(rows, member, ())
        for token in rows.mine(member):
            del rows.grants[token]
        for ticket in [t for t, waiting in rows.tickets.items() if waiting.member == member]:
            del rows.tickets[ticket]
        self.vacant(member)
        return True

    def vacant(self, member: UUID) -> None:
        led = [name for name, row in self.rows.leaders.items() if row.member == member]
        self.rows.change(self.rows.leaders, led, member=None)

    def break_(self, token: int, by: str) -> bool:
        rows = self.rows
        row = rows.grants[token]
        if row.member is not None:
            self.fences.pop(row.member, None)
        if row.broken_by is not None:
            return False
        rows.change(rows.grants, [token], broken_by=by)
        command = rows.commands.get(row.command) if row.command else None
        if command is not None and not command.over:
            rows.change(rows.commands, [row.command], state="unknown")
        if row.member is None:
            for other in [t for t in rows.mine(None) if rows.grants[t].command == row.command]:
                del rows.grants[other]
        return True

    # Fences and leaders

    def fenced(
        self,
        me: UUID,
        grants: Iterable[int],
        leadership: tuple[str, int] | None,
        command: tuple[UUID, int] | None,
    ) -> str | None:
        """Return the error that a fenced transaction gets."""
        rows = self.rows
        if not rows.members[me].live:
            return "EP002"
        if leadership is not None:
            led = rows.leaders[leadership[0]]
            if (led.member, led.term) != (me, leadership[1]):
                return "EP005"
        for token in grants:
            row = rows.grants.get(token)
            if row is None or row.member != me or row.broken_by is not None:
                return "EP004"
        if command is not None:
            run = rows.commands[command[0]]
            if (run.member, run.attempt) != (me, command[1]) or run.over:
                return "EP004"
        return None

    def win(self, rows: Rows, me: UUID, name: str, term: int) -> dict[str, Any]:
        led, draining = rows.leaders[name], rows.members[me].draining
        if name in self.fences.values():
            return {"ok": False}  # a write of the term before is under way
        if led.member is not None or led.term != term or draining:
            return {"ok": False, "term": None}
        rows.change(rows.leaders, [name], member=me, term=term + 1)
        return {"ok": True, "term": term + 1}

    def resign(self, rows: Rows, me: UUID, name: str, term: int) -> dict[str, Any]:
        led = rows.leaders[name]
        if (led.member, led.term) != (me, term):
            return {"ok": False}
        rows.change(rows.leaders, [name], member=None)
        return {"ok": True}

    def drain(self, node: str, *, on: bool) -> dict[str, int]:
        live = [(member, row) for member, row in self.rows.members.items() if row.live]
        mine = [member for member, row in live if row.node == node]
        others = sum(row.node != node and not row.draining for _, row in live)
        if not on or others:
            self.rows.change(self.rows.members, mine, draining=on)
        return {"members": len(mine), "others": others}


def told(holders: Sequence[dict[str, Any]] | None) -> Counter[tuple[str, str, int]]:
    return Counter((each["what"], each["id"], each["token"]) for each in holders or ())

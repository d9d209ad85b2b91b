"""Locks: thousands over the one lock session, each with a durable grant and a fencing token.

The advisory lock arbitrates; the grant row remembers who holds, under which token, for which
command and why. *Any* conflicting grant refuses, whatever the state of its member. A request is a
list of keys and gets all of them or none. Tasks of one node are separated in process before the
database is asked.

Does not promise yet: an order among waiters of several nodes (they ask again until their time is
up).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid4

from typing_extensions import override

from engine_pg.clock import Clock, boottime
from engine_pg.cluster.ops import Asked, Op
from engine_pg.cluster.session import LockSession
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError, Locked, MemberEnded, StaleToken
from engine_pg.ids import hash64

_FIRST_RETRY_S: Final = 0.01
_SLOWEST_RETRY_S: Final = 0.25


class Mode(StrEnum):
    """How a key is held: alone, or together with other shared holders."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


@dataclass(frozen=True, slots=True, order=True)
class LockKey:
    """What a lock is about: a kind (`host`, `vm`, `vm.name`, ...) and an id within it."""

    kind: str
    id: str

    @override
    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"

    @property
    def advisory(self) -> int:
        """The 64-bit advisory key; a collision costs a wait, never safety."""
        return hash64(str(self))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key and the mode in which it is asked for."""

    key: LockKey
    mode: Mode = Mode.EXCLUSIVE


@dataclass(frozen=True, slots=True)
class Reason:
    """Who wants a lock and why: what a refused one is told about the holder."""

    text: str = ""
    user_name: str = ""
    command_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """One key held, under its fencing token."""

    key: LockKey
    mode: Mode
    token: int

    @property
    def record(self) -> Record:
        """The grant as the protocol's SQL takes it."""
        return {"kind": self.key.kind, "id": self.key.id, "token": self.token}


class LockBusy(Locked):
    """A lock was refused; `holders` are records with node, command, user, reason and age."""

    def __init__(self, wanted: Sequence[Wanted], holders: Sequence[Record]) -> None:
        self.holders = tuple(holders)
        keys = ", ".join(str(each.key) for each in wanted)
        held_by = "; ".join(_told(each) for each in holders) or "somebody who asks at this instant"
        super().__init__(f"{keys} is locked: {held_by}")


def _told(holder: Record) -> str:
    who = holder.get("node") or "a member that ended (its command awaits adoption)"
    why = holder.get("reason") or "no reason given"
    user = f" for {holder['user_name']}" if holder.get("user_name") else ""
    return f"{holder['mode']} by {who}{user}: {why}, since {float(holder.get('age_s') or 0):.1f} s"


@dataclass(eq=False, slots=True)
class Hold:
    """Grants held together; `lost` is set when the database knows them no more."""

    grants: tuple[Grant, ...]
    owner: UUID = field(default_factory=uuid4)
    lost: StaleToken | None = None

    def grant(self, key: LockKey) -> Grant:
        """Return the grant of a key in this hold."""
        return next(grant for grant in self.grants if grant.key == key)


class LocalTable:
    """Who in this process holds or asks for a key: entered before the first `await`."""

    def __init__(self) -> None:
        self._owners: dict[LockKey, dict[UUID, tuple[Mode, Reason]]] = {}

    def enter(self, owner: UUID, wanted: Sequence[Wanted], reason: Reason) -> list[Record]:
        """Enter all keys, or return those in the way as holders."""
        holders = [
            {"mode": mode, "node": "this node", "reason": why.text, "user_name": why.user_name}
            for each in wanted
            for mode, why in self._owners.get(each.key, {}).values()
            if Mode.EXCLUSIVE in (mode, each.mode)
        ]
        if not holders:
            for each in wanted:
                self._owners.setdefault(each.key, {})[owner] = (each.mode, reason)
        return holders

    def leave(self, owner: UUID, keys: Iterable[LockKey]) -> None:
        """Forget an owner's entries."""
        for key in keys:
            owners = self._owners.get(key, {})
            owners.pop(owner, None)
            if not owners:
                self._owners.pop(key, None)


class Locks:
    """The locks of one member."""

    def __init__(self, session: LockSession, *, limit: int = 5000, clock: Clock = boottime) -> None:
        self._session = session
        self.limit: Final = limit
        self._clock = clock
        self._local = LocalTable()
        self._held: dict[UUID, Hold] = {}

    @property
    def held(self) -> list[Grant]:
        """Every grant that this member holds."""
        return [grant for hold in self._held.values() for grant in hold.grants]

    async def acquire(
        self, *wanted: Wanted, wait_s: float = 0.0, reason: Reason = Reason()
    ) -> Hold:
        """Acquire all keys or none; `LockBusy` names the holders when `wait_s` is over."""
        requests = sorted(set(wanted), key=lambda each: (each.key, each.mode))
        if len({each.key for each in requests}) != len(requests):
            raise ValueError("a key is wanted in two modes at once")
        if len(self.held) + len(requests) > self.limit:
            raise Locked(f"this node holds its limit of {self.limit} locks")
        deadline = self._clock() + wait_s
        delay_s = _FIRST_RETRY_S
        while True:
            await self._session.until_trusted()
            try:
                return await self._try(requests, reason)
            except LockBusy as error:
                probed = not error.holders  # somebody asks at this instant: one of us gets it
                if self._clock() + delay_s > deadline + (_FIRST_RETRY_S * 20 if probed else 0):
                    raise
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.6, _SLOWEST_RETRY_S)

    def release(self, hold: Hold) -> None:
        """Give the grants back; returns at once, the next batch carries it."""
        if self._held.pop(hold.owner, None) is None:
            return
        self._local.leave(hold.owner, (grant.key for grant in hold.grants))
        self._send_release(hold.grants)

    def adopt(self, grants: Sequence[Grant]) -> Hold:
        """Hold grants that came with a command; called while its claim is being settled."""
        hold = Hold(tuple(grants))
        self._local.enter(hold.owner, [Wanted(g.key, g.mode) for g in grants], Reason("adopted"))
        self._held[hold.owner] = hold
        return hold

    def forget(self, hold: Hold) -> None:
        """Drop a hold whose grants stand for an adopter, or were released with their command."""
        self._held.pop(hold.owner, None)
        self._local.leave(hold.owner, (grant.key for grant in hold.grants))

    def reconcile(self, records: Sequence[Record]) -> None:
        """Mark holds whose grants the database knows no more (broken by an operator)."""
        known = {(each["kind"], each["id"], each["token"]) for each in records}
        for hold in self._held.values():
            gone = [g for g in hold.grants if (g.key.kind, g.key.id, g.token) not in known]
            if gone:
                hold.lost = StaleToken(f"{gone[0].key} is no longer held under {gone[0].token}")

    async def _try(self, requests: list[Wanted], reason: Reason) -> Hold:
        owner = uuid4()
        busy = self._local.enter(owner, requests, reason)
        if busy:
            raise LockBusy(requests, busy)
        asked = Asked[Hold](abandoned=self.release)

        def settle(result: Record) -> None:
            if result["ok"]:
                asked.answer(self._granted(owner, requests, result["tokens"]))
            else:
                fail(LockBusy(requests, result["holders"]))

        def fail(error: EngineError) -> None:
            self._local.leave(owner, (each.key for each in requests))
            asked.refuse(error)

        self._session.submit(Op(self._acquire_body(requests, reason), settle, fail))
        return await asked.wait()

    def _granted(self, owner: UUID, requests: list[Wanted], tokens: list[int]) -> Hold:
        pairs = zip(requests, tokens, strict=True)
        hold = Hold(tuple(Grant(each.key, each.mode, token) for each, token in pairs), owner)
        self._held[owner] = hold  # before anybody resumes: what is not listed is deleted there
        return hold

    def _acquire_body(self, requests: list[Wanted], reason: Reason) -> Record:
        keys: list[dict[str, Any]] = [
            {"kind": w.key.kind, "id": w.key.id, "mode": w.mode, "advisory": w.key.advisory}
            for w in requests
        ]
        return {
            "op": "acquire",
            "keys": keys,
            "command_id": None if reason.command_id is None else str(reason.command_id),
            "user_name": reason.user_name,
            "reason": reason.text,
        }

    def _send_release(self, grants: Sequence[Grant]) -> None:
        body = {"op": "release", "grants": [grant.record for grant in grants]}
        self._session.submit(Op(body, _ignore, _ignore_end, sync=False, repeat=False))


def _ignore(_result: Record) -> None:
    """Nobody waits for a release."""


def _ignore_end(_error: EngineError | MemberEnded) -> None:
    """What an ended member held was given back with it."""

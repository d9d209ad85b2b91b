"""Leaders: named singletons, each run by one member, none of the nodes special.

A vacant leadership is won by compare-and-swap, term + 1; it is valid as long as the member's
lease. Rendezvous hashing over the live, non-draining members says who should lead what, so
leaderships spread evenly and few move when a node comes or goes. One that belongs elsewhere is
handed over: its work ends first, then it is resigned and the others are rung.

Does not promise: exactly one coroutine at any instant of a frozen machine. Writes demand the term.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from engine_pg.clock import Clock, boottime
from engine_pg.cluster.fence import Fence, leader_gate_of
from engine_pg.cluster.ops import Op
from engine_pg.cluster.session import LockSession
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError, NotHeld, innermost
from engine_pg.ids import hash64

log = logging.getLogger(__name__)

_STEADY_S: Final = 1.0
"""How long a view must stand before a leadership is moved, or taken by who is not preferred."""
_RESTART_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Leadership:
    """A leadership held: its name, its term, the fence of its writes."""

    name: str
    term: int
    session: LockSession

    @property
    def fence(self) -> Fence:
        """What each of its writes rests on."""
        return Fence(leadership=(self.name, self.term))

    async def until_trusted(self) -> None:
        """Pause while the member is past its lease."""
        await self.session.until_trusted()


Singleton = Callable[[Leadership], Awaitable[None]]


def preferred(name: str, members: Mapping[UUID, str]) -> UUID:
    """Return who of the members (id to node name) should lead: the highest hash wins."""
    return max(members, key=lambda member: (hash64(f"{name}@{members[member]}"), member))


class Leaders:
    """What one member leads, and the coroutines that it runs for it."""

    def __init__(self, session: LockSession, *, clock: Clock = boottime) -> None:
        self._session = session
        self._singletons: dict[str, Singleton] = {}
        self._clock = clock
        self._held: dict[str, tuple[int, asyncio.Task[None]]] = {}
        self._since: dict[tuple[str, object], float] = {}
        self._asked: set[str] = set()
        self._group: asyncio.TaskGroup | None = None

    def register(self, name: str, singleton: Singleton) -> None:
        """Offer to lead a singleton; before the member joins."""
        self._singletons[name] = singleton

    @property
    def names(self) -> list[str]:
        """The singletons that any member may lead."""
        return list(self._singletons)

    @property
    def held(self) -> list[Record]:
        """The leaderships of this member, as the protocol's SQL takes them."""
        return [{"name": name, "term": term} for name, (term, _) in self._held.items()]

    async def run(self) -> None:
        """Keep the singletons' coroutines until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    async def stop(self) -> None:
        """End the work of every leadership, before the member leaves."""
        self._group = None
        for _, work in self._held.values():
            work.cancel()
        if self._held:
            await asyncio.wait([work for _, work in self._held.values()])

    def observed(self, view: Record) -> None:
        """Compare what the database says with what runs here; win, start, hand over, stop."""
        if self._group is None:
            return
        members: list[Record] = view["members"] or []
        candidates = {UUID(m["member_id"]): str(m["node"]) for m in members if not m["draining"]}
        me = self._session.identity.member_id
        for row in view["leaders"]:
            name = str(row["name"])
            if name not in self._singletons:
                continue
            leader = None if row["member_id"] is None else UUID(row["member_id"])
            target = preferred(name, candidates) if candidates else None
            if leader == me:
                self._lead(name, row["term"])
                self._move_if(name, target)
            else:
                self._lose(name)
                if leader is None and me in candidates:
                    self._win_if(name, row["term"], target)

    def _steady(self, name: str, state: object) -> bool:
        """Tell whether `state` of a name has stood for a while, on our own clock."""
        now = self._clock()
        for key in [key for key in self._since if key[0] == name and key[1] != state]:
            del self._since[key]
        return now - self._since.setdefault((name, state), now) >= _STEADY_S

    def _win_if(self, name: str, term: int, target: UUID | None) -> None:
        mine = target == self._session.identity.member_id
        if name in self._asked or not (mine or self._steady(name, ("vacant", term))):
            return
        self._asked.add(name)

        def settle(result: Record) -> None:
            self._asked.discard(name)
            if result["ok"]:
                self._lead(name, result["term"])

        def fail(_error: EngineError) -> None:
            self._asked.discard(name)

        body = {"op": "win", "name": name, "term": term, "gate": leader_gate_of(name)}
        self._session.submit(Op(body, settle, fail))

    def _lead(self, name: str, term: int) -> None:
        held = self._held.get(name)
        if self._group is None or (held is not None and held[0] == term):
            return
        self._lose(name)
        leadership = Leadership(name, term, self._session)
        work = self._group.create_task(self._work(leadership), name=f"singleton {name}")
        self._held[name] = (term, work)
        log.info("leading %s, term %d", name, term)

    def _move_if(self, name: str, target: UUID | None) -> None:
        if target in (None, self._session.identity.member_id):
            self._steady(name, "stays")
        elif (
            self._steady(name, ("moves to", target))
            and self._group is not None
            and name not in self._asked
        ):
            self._asked.add(name)
            self._group.create_task(self._hand_over(name), name=f"hand over {name}")

    async def _hand_over(self, name: str) -> None:
        term, work = self._held[name]
        work.cancel()
        await asyncio.wait([work])
        self._held.pop(name, None)

        def settled(_result: Record | EngineError) -> None:
            self._asked.discard(name)

        body = {"op": "resign", "name": name, "term": term}
        self._session.submit(Op(body, settled, settled, sync=False, repeat=False))
        log.info("handed %s over", name)

    def _lose(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is not None:
            log.warning("lost %s, term %d", name, held[0])
            held[1].cancel()

    async def _work(self, leadership: Leadership) -> None:
        """Run a singleton's coroutine again and again while it is led here."""
        while True:
            try:
                await self._session.until_trusted()
                await self._singletons[leadership.name](leadership)
            except Exception as error:  # noqa: BLE001 - a singleton's defect must not end the node
                if self._session.ended is not None:
                    return
                self._tell(leadership, innermost(error))
            await asyncio.sleep(_RESTART_S)

    def _tell(self, leadership: Leadership, error: BaseException) -> None:
        name = f"{leadership.name}, term {leadership.term}"
        if isinstance(error, NotHeld):
            log.info("%s: %s", name, error)
        elif isinstance(error, EngineError):
            log.warning("%s failed: %s", name, error)
        else:
            log.error("%s failed", name, exc_info=error)

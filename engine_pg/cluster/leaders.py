"""Leaders: named singletons, each run by one member, none of the nodes special.

A vacant leadership is won by compare-and-swap, term + 1; it is valid as long as the member's
lease. Placement says who should lead what. A leadership that belongs elsewhere is handed over: its
work ends first (at its next await; each of its transactions is whole), then it is resigned and the
others are rung, and the one where it belongs wins it at once.

Does not promise: exactly one coroutine at any instant of a frozen machine. Writes demand the term.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from engine_pg.clock import Clock, boottime
from engine_pg.cluster.fence import Fence, leader_gate_of
from engine_pg.cluster.ops import Op
from engine_pg.cluster.placement import Leader, preferred
from engine_pg.cluster.session import LockSession
from engine_pg.cluster.view import View
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError, NotHeld, innermost

log = logging.getLogger(__name__)

_STEADY_S: Final = 1.0
"""How long a view must stand before a leadership is moved, or taken by who is not preferred."""
_RESTART_S: Final = 1.0
_ENDING_S: Final = 5.0
_STOPPING_S: Final = 1.0


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


class Leaders:
    """What one member leads, and the coroutines that it runs for it."""

    def __init__(
        self, session: LockSession, *, ring: Callable[[], None], clock: Clock = boottime
    ) -> None:
        self._session = session
        self._ring = ring
        self._singletons: dict[str, Singleton] = {}
        self._clock = clock
        self._held: dict[str, tuple[int, asyncio.Task[None]]] = {}
        self._since: dict[str, tuple[object, float]] = {}
        self._targets: dict[str, UUID | None] = {}
        self._asked: set[str] = set()
        self._restless = True  # something waits for time to pass
        self._group: asyncio.TaskGroup | None = None

    def register(self, name: str, singleton: Singleton) -> None:
        """Offer to lead a singleton; before the member joins."""
        self._singletons[name] = singleton

    @property
    def names(self) -> list[str]:
        """The singletons that this member may lead."""
        return list(self._singletons)

    @property
    def held(self) -> list[Record]:
        """The leaderships of this member, as the protocol's SQL takes them."""
        return [{"name": name, "term": term} for name, (term, _) in self._held.items()]

    async def run(self) -> None:
        """Keep the singletons' coroutines until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._restless = True
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    async def stop(self) -> None:
        """End the work of every leadership, before the member leaves; bounded."""
        self._group = None
        pending = {work for _, work in self._held.values()}
        deadline = self._clock() + _ENDING_S
        while pending and self._clock() < deadline:
            pending = await _cancelled(pending, _STOPPING_S)
        if pending:  # the member's end is what refuses its writes
            log.warning("%d singletons do not end", len(pending))

    def observed(self, view: View, *, changed: bool) -> None:
        """Compare what the database says with what runs here; win, start, hand over, stop."""
        if self._group is None or not (changed or self._restless):
            return
        leaders = [each for name in self._singletons if (each := view.leaders.get(name))]
        if changed or not self._targets:
            members = view.candidates.values()
            self._targets = {leader.name: preferred(leader, members) for leader in leaders}
        self._restless = False
        for leader in leaders:
            if leader.name in self._asked:  # on its way; the look may be older than the answer
                self._restless = True
            elif leader.member_id == self._me:
                self._lead(leader.name, leader.term)
                self._move_if(leader, view)
            else:
                self._lose(leader.name)
                self._win_if(leader, view)

    @property
    def _me(self) -> UUID:
        return self._session.identity.member_id

    def _steady(self, name: str, state: object) -> bool:
        """Tell whether `state` of a name has stood for a while, on our own clock."""
        now = self._clock()
        since = self._since.get(name)
        if since is None or since[0] != state:
            self._since[name] = since = (state, now)
        if now - since[1] >= _STEADY_S:
            return True
        self._restless = True
        return False

    def _win_if(self, leader: Leader, view: View) -> None:
        """Win what is vacant: at once where it belongs, after a while if nobody else has."""
        me = view.candidates.get(self._me)
        if leader.member_id is not None or me is None or not me.can_lead(leader.name):
            self._since.pop(leader.name, None)
            return
        name, term = leader.name, leader.term
        if self._targets.get(name) != self._me and not self._steady(name, ("vacant", term)):
            return
        self._asked.add(name)

        def settle(result: Record) -> None:
            self._asked.discard(name)
            if result["ok"]:
                self._lead(name, result["term"])

        def fail(_error: EngineError) -> None:
            self._asked.discard(name)

        self._restless = True
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

    def _move_if(self, leader: Leader, view: View) -> None:
        """Hand over what belongs elsewhere: at once if we were told to, else when that stands."""
        name, target = leader.name, self._targets.get(leader.name)
        if self._group is None or target in (None, self._me):
            self._since.pop(name, None)
            return
        me = view.candidates.get(self._me)
        told = leader.avoid_member_id == self._me or (me is not None and me.draining)
        if not (told or self._steady(name, ("moves to", target))):
            return
        if view.silent_s(target) > view.ttls_s[target] / 2:
            self._restless = True  # it would lie there vacant
            return
        self._asked.add(name)
        self._restless = True
        self._group.create_task(self._hand_over(name), name=f"hand over {name}")

    async def _hand_over(self, name: str) -> None:
        term, work = self._held[name]
        while await _cancelled({work}, _ENDING_S):
            log.warning("%s does not end: it is not handed over yet", name)
        self._held.pop(name, None)

        def settled(result: Record | EngineError) -> None:
            self._asked.discard(name)
            self._since.pop(name, None)
            if not isinstance(result, EngineError):
                self._ring()

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


async def _cancelled(works: set[asyncio.Task[None]], patience_s: float) -> set[asyncio.Task[None]]:
    """Cancel, wait a while, and return what goes on: one cancellation can be swallowed.

    `asyncio.wait_for` does so before Python 3.12, when what it waits for ends at that instant.
    """
    for work in works:
        work.cancel()
    return (await asyncio.wait(works, timeout=patience_s))[1]

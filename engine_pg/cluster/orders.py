"""What an operator orders: pins, resignations, draining. Works on the database; no node is asked.

Members hear of an order by the doorbell, or with their next look; they carry it out themselves.

Does not promise: that an order was carried out when it returns. `Picture` shows how far it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from engine_pg.cluster.placement import Candidate, Leader, unsettled
from engine_pg.cluster.topics import MEMBERS
from engine_pg.cluster.view import View
from engine_pg.db.database import Database
from engine_pg.db.listener import RING
from engine_pg.db.tx import Params, Record
from engine_pg.errors import Conflict, NotFound

PIN: Final[LiteralString] = "select leader_pin(%(name)s, %(node)s) as found"
ASK: Final[LiteralString] = "select leader_ask_to_resign(%(name)s) as member_id"
DRAIN: Final[LiteralString] = "select member_drain(%(node)s, %(on)s) as found"
VIEW: Final[LiteralString] = "select cluster_view('') as look"
NODES: Final[LiteralString] = """
select node, bool_and(drain_heard_at is not null) as heard
  from member where state = 'live' group by node
"""


@dataclass(frozen=True, slots=True)
class Picture:
    """The leaderships as they are, and where they belong."""

    leaders: tuple[Leader, ...]
    members: tuple[Candidate, ...]
    heard: frozenset[str]  # nodes that have heard the order to drain

    @property
    def unsettled(self) -> list[str]:
        """The leaderships that are vacant or elsewhere than they belong."""
        return unsettled(self.leaders, self.members)

    def led_by(self, node: str) -> list[str]:
        """Return what the node's members lead."""
        ids = {each.member_id for each in self.members if each.node == node}
        return [each.name for each in self.leaders if each.member_id in ids]


async def picture(db: Database) -> Picture:
    """Look at members and leaders, all at one instant."""
    view = View()
    async with db.read() as tx:
        look = await tx.first(VIEW)
        nodes = await tx.all(NODES)
    if look is not None:
        view.take(look["look"])
    heard = frozenset(each["node"] for each in nodes if each["heard"])
    return Picture(tuple(view.leaders.values()), tuple(view.candidates.values()), heard)


async def pin(db: Database, name: str, node: str) -> None:
    """Let a node lead a singleton whenever it has a live member that takes work."""
    if not (await _ordered(db, PIN, {"name": name, "node": node}))["found"]:
        raise NotFound(f"there is no leadership {name}")


async def unpin(db: Database, name: str) -> None:
    """Let a leadership go where placement puts it."""
    if not (await _ordered(db, PIN, {"name": name, "node": None}))["found"]:
        raise NotFound(f"there is no leadership {name}")


async def ask_to_resign(db: Database, name: str) -> UUID:
    """Ask whoever leads a singleton to hand it over, and to leave it to others from then on."""
    member_id = (await _ordered(db, ASK, {"name": name}))["member_id"]
    if member_id is None:
        raise NotFound(f"nobody leads {name}")
    return member_id


async def drain(db: Database, node: str, *, on: bool = True) -> None:
    """Tell a node to hand over what it leads and to take no new work, or to take some again."""
    found = (await _ordered(db, DRAIN, {"node": node, "on": on}))["found"]
    if not found["members"]:
        raise NotFound(f"there is no live member of a node {node}")
    if on and not found["others"]:
        raise Conflict(f"{node} is the last that takes work: nobody could take its place")


async def _ordered(db: Database, order: LiteralString, params: Params) -> Record:
    async with db.write() as tx:
        row = await tx.first(order, params)
    await db.statement(RING, {"topics": [MEMBERS]})
    return row or {}

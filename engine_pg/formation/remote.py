"""A switchover of the formation that the engine's database is on, wherever that is.

It needs the addresses alone: of the database, and of its monitor. Beside the steps of every
switchover a writer goes on all the while, and the engine's members are looked for afterwards.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from engine_pg.db.database import Database, connect
from engine_pg.db.wire import bounded
from engine_pg.errors import Conflict, EngineError, Invalid
from engine_pg.formation.asking import closed
from engine_pg.formation.line import MonitorLine
from engine_pg.formation.proof import Roll, Writer, missing_after, ready, roll_of
from engine_pg.formation.state import NODES, SELF, FormationState, assembled, watched
from engine_pg.formation.switching import (
    CHECKPOINT,
    CHECKPOINT_S,
    PERFORM,
    Switchover,
    Tell,
)
from engine_pg.supervisor import Background

_BEGUN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a switchover did, and what it did not break."""

    old: str
    new: str
    writable_after_s: float
    settled_after_s: float
    write_gap_s: float
    acknowledged: int
    lost: int
    members: int
    missing: list[str]  # nodes whose members did not go on

    @property
    def kept(self) -> bool:
        """Say whether nothing is lost and every member goes on."""
        return not self.lost and not self.missing

    def document(self) -> dict[str, Any]:
        """Return it as a document with keys that stay."""
        return asdict(self) | {"kept": self.kept}


class Remote:
    """A formation, asked by the addresses of its monitor and of the engine's database."""

    def __init__(self, db: Database, line: MonitorLine, writer: Writer) -> None:
        self._db = db
        self._line = line
        self._writer = writer
        self._timeline = 0

    async def look(self) -> FormationState:
        """Ask the monitor and the primary."""
        try:
            told = await self._line.ask(NODES)
        except EngineError:
            return assembled((), {}, {})
        async with self._db.read() as tx:
            own = await tx.first(SELF)
        assert own is not None
        return watched(told, own)

    async def checkpoint(self, primary: str) -> None:  # noqa: ARG002 - who answers is the primary
        """Let the primary write out what its shutdown would have to."""
        connection = await connect(self._db.url, name="engine_pg switchover")
        try:
            await bounded(connection, connection.execute(CHECKPOINT), CHECKPOINT_S)
        finally:
            await closed(connection)

    async def perform(self) -> None:
        """Ask the monitor to let another node be the primary."""
        self._timeline = self._writer.timeline
        await self._line.ask(PERFORM)

    async def successor(self, old: str) -> str | None:
        """Return the primary of a newer timeline, once it has acknowledged a write."""
        if self._writer.timeline <= self._timeline:
            return None
        primary = (await self.look()).primary
        return primary.name if primary and primary.name != old else None


async def switch_over(url: str, monitor_url: str, tell: Tell) -> Verdict:
    """Check, perform, verify; raises `Conflict` when it had better not begin."""
    line, writer = MonitorLine(monitor_url), Writer(url)
    async with Database(url, name="engine_pg switchover", pool_max=2) as db:
        if not await ready(db):
            raise Invalid("the database is older than this engine: `engine-pg db upgrade` first")
        try:
            async with Background() as background:
                background.start(writer.run(), name="writer of proofs")
                if not await writer.begun(_BEGUN_S):
                    raise Conflict("no switchover: a write is not acknowledged, commits hang")
                before = await roll_of(db)
                tell(f"{len(before.nodes)} members of the engine live; a writer goes on meanwhile")
                done = await Switchover(Remote(db, line, writer)).run(tell)
            return await _judged(db, writer, before, done.document(), tell)
        finally:
            await line.close()


async def _judged(
    db: Database, writer: Writer, before: Roll, done: dict[str, Any], tell: Tell
) -> Verdict:
    missing = await missing_after(db, before)
    lost = await writer.lost(db)
    tell(
        f"{len(before.nodes) - len(missing)} of {len(before.nodes)} members have resumed; of"
        f" {writer.acknowledged} acknowledged writes {lost} are lost"
    )
    return Verdict(
        **done,
        write_gap_s=round(writer.gap_s, 2),
        acknowledged=writer.acknowledged,
        lost=lost,
        members=len(before.nodes),
        missing=missing,
    )

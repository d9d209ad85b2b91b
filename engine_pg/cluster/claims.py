"""Claims: the right to run a command, with its grants, under a new attempt and new tokens.

A claim is a compare-and-swap in the lock session's batch: of all nodes that are told to run a
command, one gets it. The commands of an ended member are claimed together with the grants that
stand for them, so that their keys are never free in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from engine_pg.cluster.locks import Grant, Hold, LockKey, Locks, Mode
from engine_pg.cluster.ops import Asked, Op
from engine_pg.cluster.session import LockSession
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError


@dataclass(eq=False, slots=True)
class Claim:
    """A command that this member runs: its attempt and all that it holds."""

    command_id: UUID
    attempt: int
    holds: list[Hold] = field(default_factory=list[Hold])
    command: Record | None = None  # its row as of the claim, as JSON, if the database told it

    @property
    def grants(self) -> tuple[Grant, ...]:
        """Every grant held for the command."""
        return tuple(grant for hold in self.holds for grant in hold.grants)


class Claims:
    """The commands that one member runs."""

    def __init__(self, session: LockSession, locks: Locks) -> None:
        self._session = session
        self._locks = locks
        self._claims: dict[UUID, Claim] = {}

    @property
    def commands(self) -> list[UUID]:
        """The ids of the commands that this member runs."""
        return list(self._claims)

    async def claim(self, command_id: UUID) -> Claim | None:
        """Claim a command; None when it is over, or somebody runs it."""
        asked = Asked[Claim | None](abandoned=self._vacate_if)

        def settle(result: Record) -> None:
            asked.answer(self._claimed(command_id, result) if result["ok"] else None)

        self._session.submit(
            Op({"op": "claim", "command_id": str(command_id)}, settle, asked.refuse)
        )
        return await asked.wait()

    def vacate(self, claim: Claim) -> None:
        """Give a command up, unfinished: another member may adopt it with the grants that stand."""
        if self._claims.pop(claim.command_id, None) is None:
            return
        for hold in claim.holds:
            self._locks.forget(hold)
        body = {"op": "unclaim", "command_id": str(claim.command_id)}
        self._session.submit(Op(body, _settled, _ended, repeat=False))

    def finish(self, claim: Claim) -> None:
        """Release what a finished command held."""
        self._claims.pop(claim.command_id, None)
        for hold in claim.holds:
            self._locks.release(hold)

    def _vacate_if(self, claim: Claim | None) -> None:
        if claim is not None:
            self.vacate(claim)

    def _claimed(self, command_id: UUID, result: Record) -> Claim:
        claimed = result["claim"]
        claim = Claim(command_id, claimed["attempt"], command=claimed.get("command"))
        self._claims[command_id] = claim
        grants = [
            Grant(LockKey(each["kind"], each["id"]), Mode(each["mode"]), each["token"])
            for each in result["grants"]
        ]
        if grants:
            claim.holds.append(self._locks.adopt(grants))
        return claim


def _settled(_result: Record) -> None:
    """Nobody waits for it."""


def _ended(_error: EngineError) -> None:
    """An ended member's commands were vacated with it."""

"""One run of a command on one node: its rights, its services, what its earlier steps found."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString, Protocol
from uuid import UUID

from engine_pg.cluster.claims import Claim
from engine_pg.cluster.fence import Fence, FencedTx
from engine_pg.cluster.locks import LockBusy, LockKey, Reason, Wanted
from engine_pg.cluster.membership import Membership
from engine_pg.commands import store
from engine_pg.commands.checked import CheckedDriver
from engine_pg.commands.halt import Halt
from engine_pg.commands.rows import CommandView, StepView, Submission
from engine_pg.db.database import Database
from engine_pg.db.tx import Record, Tx
from engine_pg.hosts.connections import HostConnections
from engine_pg.hosts.driver import HeldKey, OpCtx
from engine_pg.ids import new_id
from engine_pg.inventory.rows import Host

log = logging.getLogger(__name__)

_RELEASED_TTLS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: one host call, and how long a call may still be under way at a host."""

    host_call_s: float = 10.0
    host_inflight_s: float = 10.0


RELEASING: Final[LiteralString] = """
select 1 as releasing from lock_grant join command using (command_id)
 where kind = %(kind)s and id = %(id)s and ended_at is not null
"""


class Counter(Protocol):
    """What a run may do about other commands (`engine_pg.commands.desk`)."""

    async def submit(self, tx: Tx, submission: Submission) -> None:
        """Write a command and its job; repeating a submission changes nothing."""
        ...

    async def cancel(self, tx: Tx, command_id: UUID, *, by: str) -> CommandView:
        """Ask for the end of a command, and return it as it is then."""
        ...


Reached = Callable[[str, str, str], Awaitable[None]]

PROGRESS: Final[LiteralString] = """
select command_progress(%(command_id)s, %(number)s, %(fraction)s::real, %(message)s)
"""


async def nowhere(command: str, step: str, place: str) -> None:
    """Do nothing at a boundary."""


@dataclass(slots=True)
class Run:
    """What a step works with; lives for one attempt of a command.

    `desk` is where it asks for other commands; `reached` is told of each boundary that
    the run comes to; `number` is that of the step that runs.
    """

    command: CommandView
    claim: Claim
    membership: Membership
    db: Database
    hosts: HostConnections
    patience: Patience
    desk: Counter
    halt: Halt = field(default_factory=Halt)
    reached: Reached = nowhere
    number: int = 0
    outcomes: dict[str, Record] = field(default_factory=dict[str, Record])
    notes: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def subject_id(self) -> UUID:
        """What the command is about."""
        return self.command.subject_id

    @property
    def params(self) -> Record:
        """What its caller asked for."""
        return self.command.params

    @property
    def fence(self) -> Fence:
        """What each of its writes rests on: every grant, and the command's attempt."""
        return Fence(self.claim.grants, command=(self.command.command_id, self.claim.attempt))

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[FencedTx]:
        """Open a fenced transaction of this command."""
        async with self.membership.fencing.tx(self.fence) as tx:
            yield tx

    async def lock(self, *wanted: Wanted, wait_s: float = 0.0) -> None:
        """Hold more keys until the command ends; those it holds already are skipped."""
        held = {grant.key for grant in self.claim.grants}
        missing = [each for each in wanted if each.key not in held]
        if missing:
            reason = Reason(
                self.command.description, self.command.user_name, self.command.command_id
            )
            async with self.halt.cutting():
                hold = await self.membership.locks.acquire(*missing, wait_s=wait_s, reason=reason)
                self.claim.holds.append(hold)

    async def lock_first(self, *wanted: Wanted, wait_s: float) -> None:
        """Hold the keys that the command begins with.

        A key that a command holds which is over is waited for, at most until its holder has resumed
        or was ended: its node, or the database, is away before the release. That is nobody's
        operation in progress.
        """
        try:
            await self.lock(*wanted, wait_s=wait_s)
        except LockBusy as busy:
            if not await self._releasing(wanted):
                raise
            log.info("%s; that command is over, waiting for the release", busy)
            await self.lock(*wanted, wait_s=_RELEASED_TTLS * self.membership.session.ttl_s)

    async def _releasing(self, wanted: Sequence[Wanted]) -> bool:
        async with self.db.read() as tx:
            for each in wanted:
                key = {"kind": each.key.kind, "id": each.key.id}
                if await tx.first(RELEASING, key) is not None:
                    return True
        return False

    async def at(self, step: str, place: str) -> None:
        """Come to a boundary (`engine_pg.commands.boundaries`)."""
        await self.reached(self.command.name, step, place)

    async def progress(self, fraction: float, message: str) -> None:
        """Tell how far the step is that runs, from 0 to 1, and what goes on, in a sentence."""
        params = {"command_id": self.command.command_id, "number": self.number}
        async with self.write() as tx:
            await tx.run(PROGRESS, params | {"fraction": fraction, "message": message})

    def token(self) -> int | None:
        """Return the highest token held: what a step's row remembers."""
        return max((grant.token for grant in self.claim.grants), default=None)

    def holds(self, key: LockKey) -> bool:
        """Tell whether the command holds a key."""
        return any(grant.key == key for grant in self.claim.grants)

    async def steps(self) -> dict[int, StepView]:
        """Return the steps recorded so far, by number."""
        async with self.db.read() as tx:
            command = await store.view(tx, self.command.command_id)
        return {step.number: step for step in command.steps}

    def ctx(self) -> OpCtx:
        """Return what a host call carries: all grants of the command."""
        held = tuple(HeldKey(str(g.key), g.mode.value, g.token) for g in self.claim.grants)
        return OpCtx(new_id(), held, self.patience.host_call_s, self.command.correlation_id)

    async def driver(self, host: Host) -> CheckedDriver:
        """Return this node's connection to a host."""
        trust = self.membership.session
        trust.check()
        driver = await self.hosts.get(host.host_id, host.address, host.port, self.ctx())
        return CheckedDriver(driver, trust)

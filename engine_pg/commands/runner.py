"""Runs commands: claims them, goes on at the first step without an outcome, ends them.

Adopting another node's command and coming back from a lost database are the same path: read what is
recorded, ask the host about an intent without an outcome, go on. Past `trusted_until` a run pauses;
it fails only when its rights are gone for good.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final
from uuid import UUID

import structlog

from engine_pg.cluster.claims import Claim
from engine_pg.cluster.membership import Membership
from engine_pg.commands import store
from engine_pg.commands.children import Parked
from engine_pg.commands.course import Course, recorded_error
from engine_pg.commands.definition import Definition
from engine_pg.commands.desk import Desk
from engine_pg.commands.halt import Halt, halting
from engine_pg.commands.journal import Journal
from engine_pg.commands.rows import CommandView
from engine_pg.commands.run import Patience, Reached, Run, nowhere
from engine_pg.db.database import Database
from engine_pg.db.gathered import Gathered
from engine_pg.db.listener import Doorbells
from engine_pg.errors import (
    EngineError,
    LeaseLost,
    MemberEnded,
    NotFound,
    NotHeld,
    OutcomeUnknown,
    StaleToken,
    Unavailable,
)
from engine_pg.hosts.connections import HostConnections

log = logging.getLogger(__name__)

COMMANDS: Final = "commands"
CANCELS: Final = "cancels"
LIMIT: Final = 5
"""How many runners may end while they run a command, before it is given up."""
_WATCH_S: Final = 1.0
_PARKING_S: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
_FIRST_RETRY_S: Final = 0.1
_SLOWEST_RETRY_S: Final = 1.0


class UnknownCommand(EngineError):
    """A newer node submitted it; another one of its kind will run it."""


class Runner:
    """Runs the commands that one member claims."""

    def __init__(
        self,
        membership: Membership,
        db: Database,
        hosts: HostConnections,
        bells: Doorbells,
        registry: Mapping[str, Definition],
        *,
        patience: Callable[[], Patience] = Patience,
        limit: Callable[[], int] = lambda: LIMIT,
        reached: Reached = nowhere,
    ) -> None:
        self._membership = membership
        self._db = db
        self._hosts = hosts
        self._bells = bells
        self._registry = registry
        self._desk = Desk(registry)
        self._patience = patience
        self._limit = limit
        self._reached = reached
        self._halts: dict[UUID, Halt] = {}
        self._bell = bells.bell(CANCELS)
        self._views = Gathered[UUID, CommandView | None](partial(store.views, db))

    async def run(self, command_id: UUID) -> None:
        """Run a command to its end, unless it is over or somebody else runs it."""
        claim = await self._claimed(command_id)
        if claim is None:
            return
        with structlog.contextvars.bound_contextvars(command=str(command_id)):
            try:
                await self._persist(claim)
            except Parked as parked:
                log.info("parked: %s", parked)
                self._membership.claims.vacate(claim)
                return
            except (NotHeld, UnknownCommand, asyncio.CancelledError):
                self._membership.claims.vacate(claim)
                raise
            except BaseException:
                await self._blamed(claim)
                self._membership.claims.vacate(claim)
                raise
            finally:
                self._halts.pop(command_id, None)
            self._membership.claims.finish(claim)
        self._bells.ring_soon(COMMANDS)

    async def watch(self) -> None:
        """Halt what runs here and was cancelled, or has run out of time; until cancelled."""
        while True:
            if self._halts:
                try:
                    async with self._db.read() as tx:
                        found = await store.to_halt(tx, list(self._halts))
                except EngineError as error:
                    log.info("cannot look for what to halt: %s", error)
                else:
                    for command in found:
                        halt, reason = self._halts.get(command.command_id), halting(command)
                        if halt is not None and reason is not None:
                            halt.order(reason)
            await self._bell.wait(_WATCH_S)

    async def _blamed(self, claim: Claim) -> None:
        """Count a failure that nobody foresaw as the end of a node: it may come again and again."""
        with suppress(EngineError):
            await self._db.statement(store.BLAME, {"command_id": claim.command_id})

    async def _claimed(self, command_id: UUID) -> Claim | None:
        """Claim a command; a parent that is about to be parked is waited for.

        Its child's end has it run again, once: that job must not be lost on who just leaves it.
        """
        for pause_s in _PARKING_S:
            claim = await self._membership.claims.claim(command_id)
            if claim is not None:
                return claim
            found = await self._db.once(store.CALLED, {"command_id": command_id})
            if not found or not found[0]["called"]:
                return None
            await asyncio.sleep(pause_s)
        return None

    async def _persist(self, claim: Claim) -> None:
        """Go on until the command is final, whatever is away for a while."""
        delay_s, again = _FIRST_RETRY_S, claim.attempt > 1
        while True:
            try:
                await self._membership.session.until_trusted()
                await self._attempt(claim, await self._view(claim, again=again))
            except MemberEnded:
                raise
            except (LeaseLost, Unavailable, OutcomeUnknown) as error:
                log.info("paused: %s", error)
            except StaleToken as error:
                if await self._over(claim):
                    return
                raise StaleToken(f"the command was taken away: {error}") from error
            else:
                return
            again = True
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.7, _SLOWEST_RETRY_S)

    async def _over(self, claim: Claim) -> bool:
        async with self._db.read() as tx:
            return (await store.view(tx, claim.command_id)).final

    async def _view(self, claim: Claim, *, again: bool) -> CommandView:
        """Return the command: as it was claimed the first time, when there were no steps."""
        if not again and claim.command is not None:
            return store.claimed(claim.command)
        command = await self._views.ask(claim.command_id)
        if command is None:
            raise NotFound(f"there is no command {claim.command_id}")
        return command

    async def _attempt(self, claim: Claim, command: CommandView) -> None:
        if command.final:
            return
        definition = self._registry.get(command.name)
        if definition is None:
            raise UnknownCommand(f"this version knows no command {command.name}")
        halt = self._halts[claim.command_id] = Halt()
        run = Run(
            command,
            claim,
            self._membership,
            self._db,
            self._hosts,
            self._patience(),
            self._desk,
            halt,
            self._reached,
        )
        if (reason := halting(command)) is not None:
            halt.order(reason)
        journal = Journal(run, definition, lambda: self._bells.ring_soon(COMMANDS))
        course = Course(run, definition, journal, limit=self._limit())
        if command.error is None:
            error = await course.forward()
            if error is None:
                return
        else:
            error = recorded_error(command.error_kind, command.error)
        await course.backward(error)

"""Binds the queue to what it runs: a job named `run_command` is one run of that command."""

from __future__ import annotations

import logging
from uuid import UUID

from engine_pg.cluster.members import record_worker
from engine_pg.cluster.membership import Membership
from engine_pg.commands.runner import Runner, UnknownCommand
from engine_pg.db.database import Database
from engine_pg.db.listener import QUEUE, Doorbells
from engine_pg.db.queue import serve_jobs
from engine_pg.errors import MemberEnded, NotHeld

log = logging.getLogger(__name__)


async def work(
    db: Database, membership: Membership, runner: Runner, bells: Doorbells, *, concurrency: int
) -> None:
    """Run jobs for a member until cancelled; while it drains, only those that it has begun."""

    async def run_command(command_id: UUID) -> None:
        try:
            await runner.run(command_id)
        except MemberEnded:
            log.info("command %s goes on elsewhere: this member ended", command_id)
        except (NotHeld, UnknownCommand) as error:
            log.warning("command %s: %s", command_id, error)

    async def registered(worker_id: int) -> None:
        await record_worker(db, membership.identity.member_id, worker_id)

    await serve_jobs(
        db.url,
        run_command,
        concurrency=concurrency,
        registered=registered,
        bell=bells.bell(QUEUE),
        accepting=lambda: not membership.draining,
    )

"""Procrastinate's worker, made to outlive the database and to do many jobs in one statement.

Stock 3.10 loses LISTEN for ever at a restart, stops with success after one, leaves a finished job
`doing`, stops beating while it drains, and fetches one job at a time. Each override below mends
one of these; they touch private parts, so the minor version is pinned and tests hold them to it.
Its queries go through a `Database` of ours, and our doorbell wakes it. What a lost job leaves is
nothing: a job is one disposable run of a command; whoever finds a command without one defers it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, LiteralString
from uuid import UUID

import procrastinate
from procrastinate import connector, exceptions, job_context, jobs, utils
from procrastinate.worker import Worker
from typing_extensions import override

from engine_pg.clock import boottime
from engine_pg.db.database import Database
from engine_pg.db.jobs import TASK, Ledger, QueueDatabase, Taken
from engine_pg.db.listener import Bell
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError, OutcomeUnknown, Unavailable
from engine_pg.supervisor import Background, cancellations

log = logging.getLogger(__name__)

_HEARTBEAT_S: Final = 5.0
_POLL_S: Final = 1.0
_STALLED_S: Final = 600.0  # the end of a member puts its jobs back long before
_PACES_S: Final = (0.003, 0.006, 0.009)
_BOUND_S: Final = 3.0
_AWAY_S: Final = 1.0
_GRACE_S: Final = 5.0
_SLOWEST_RETRY_S: Final = 0.5

RunCommand = Callable[[UUID], Awaitable[None]]
Registered = Callable[[int], Awaitable[None]]
Accepting = Callable[[], bool]


class FollowingConnector(connector.BaseAsyncConnector):
    """Procrastinate's queries over our connections: outages are invisible to the worker."""

    def __init__(self, db: Database) -> None:
        self.stopping = False
        self._db = db

    @override
    async def open_async(self, pool: connector.Pool | None = None) -> None:
        """Do nothing: the database is open."""

    @override
    async def close_async(self) -> None:
        """Do nothing: the database is closed by who opened it."""

    @override
    async def execute_query_async(self, query: LiteralString, **arguments: Any) -> None:
        await self.execute_query_all_async(query, **arguments)

    @override
    async def execute_query_one_async(self, query: LiteralString, **arguments: Any) -> Record:
        return (await self.execute_query_all_async(query, **arguments))[0]

    @override
    async def execute_query_all_async(self, query: LiteralString, **arguments: Any) -> list[Record]:
        return await self.insist(partial(self._db.once, query, arguments))

    async def insist(self, query: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
        """Try a query that may be repeated until it is answered, unless the worker stops."""
        delay_s = 0.05
        while True:
            try:
                return await query()
            except (Unavailable, OutcomeUnknown) as error:
                if self.stopping:
                    raise exceptions.ConnectorException from error
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.6, _SLOWEST_RETRY_S)


class FollowingWorker(Worker):
    """A worker that stops only when it is told to, and takes as many jobs at once as it can."""

    def __init__(
        self,
        app: procrastinate.App,
        db: Database,
        run_command: RunCommand,
        *,
        places: Mapping[str, int],
        registered: Registered,
        accepting: Accepting,
    ) -> None:
        super().__init__(
            app,
            queues=list(places),
            concurrency=sum(places.values()),
            fetch_job_polling_interval=_POLL_S,
            shutdown_graceful_timeout=_GRACE_S,
            listen_notify=False,
            delete_jobs=jobs.DeleteJobCondition.ALWAYS,
            install_signal_handlers=False,
            update_heartbeat_interval=_HEARTBEAT_S,
            stalled_worker_timeout=_STALLED_S,
        )
        self._places = places
        self._run_command = run_command
        self._registered = registered
        self._accepting = accepting
        self._ledger = Ledger(db)
        self._rings = 0
        self._took_at = 0.0

    @property
    def _connector(self) -> FollowingConnector:
        assert isinstance(self.app.connector, FollowingConnector)
        return self.app.connector

    @override
    def stop(self) -> None:
        """Stop; queries that fail are not tried again from now on."""
        self._connector.stopping = True
        super().stop()

    def wake(self) -> None:
        """Look for jobs now."""
        self._rings += 1
        self._new_job_event.set()

    @override
    async def _run_loop(self) -> None:
        if self.worker_id is not None:
            await self._registered(self.worker_id)
        await super()._run_loop()

    @override
    async def _fetch_and_process_jobs(self) -> None:
        """Take jobs until there is none that has a place, or nothing rang meanwhile."""
        heard = -1
        while heard != self._rings and not self._stop_event.is_set():
            await self._pace()
            heard = self._rings
            self._new_job_event.clear()
            room = self._room() if self._accepting() else {}
            if not (room or self._ledger.owes):
                return
            try:
                taken = await self._connector.insist(partial(self._take, room))
            except exceptions.ConnectorException:  # it stops: what it has is given back
                return
            for job in taken:
                self._begin(job)

    async def _pace(self) -> None:
        """Let jobs, ends and free places gather: many are taken as fast as one."""
        for pace_s in _PACES_S:
            if (wait_s := self._took_at + pace_s - boottime()) > 0:
                await asyncio.sleep(wait_s)
            if 2 * len(self._running_jobs) <= self.concurrency:
                break
        self._took_at = boottime()

    async def _take(self, room: Mapping[str, int]) -> list[Taken]:
        assert self.worker_id is not None
        running = [context.job.id for context in self._running_jobs.values() if context.job.id]
        return await self._ledger.take(self.worker_id, room, running)

    def _room(self) -> dict[str, int]:
        """Return how many more jobs of each queue have a place."""
        taken = Counter(context.job.queue for context in self._running_jobs.values())
        room = {name: places - taken[name] for name, places in self._places.items()}
        return {name: places for name, places in room.items() if places > 0}

    def _begin(self, taken: Taken) -> None:
        job = jobs.Job(
            id=taken.job_id,
            queue=taken.queue,
            lock=None,
            queueing_lock=None,
            task_name=TASK,
            task_kwargs={"command_id": str(taken.command_id)},
            attempts=taken.attempts,
        )
        context = job_context.JobContext(
            app=self.app,
            worker_name=self.worker_name,
            worker_queues=self.queues,
            job=job,
            abort_reason=lambda: None,
            start_timestamp=boottime(),
        )
        running = asyncio.create_task(  # noqa: TID251 - Procrastinate's shutdown awaits it
            self._process_job(context), name=f"command {taken.command_id}"
        )
        self._running_jobs[running] = context
        running.add_done_callback(self._over)

    def _over(self, running: asyncio.Task[Any]) -> None:
        del self._running_jobs[running]
        self.wake()

    @override
    async def _process_job(self, context: job_context.JobContext) -> None:
        """Run a command; the job goes with the next statement, unless it was interrupted."""
        assert context.job.id is not None
        try:
            await self._run_command(UUID(str(context.job.task_kwargs["command_id"])))
        except asyncio.CancelledError:
            return  # it is put back at the end of the shutdown
        except Exception:
            log.exception("job %d failed: its command is looked after", context.job.id)
        self._ledger.end(context.job.id)

    @override
    def _start_side_tasks(self) -> list[asyncio.Task[Any]]:
        """Beat, and nothing else: stock watches its side tasks until the first one returns."""
        beating = asyncio.create_task(  # noqa: TID251 - Procrastinate watches it, and ends it
            self._update_heartbeat(), name="update_heartbeats"
        )
        return [beating]

    @override
    async def _shutdown(self, side_tasks: list[asyncio.Task[Any]]) -> None:
        """Beat until the last job has ended, then put back what was interrupted."""
        try:
            if self._running_jobs:
                await asyncio.wait(self._running_jobs, timeout=self.shutdown_graceful_timeout)
            if self._running_jobs:
                await self._abort_running_jobs()
            await self._give_back()
            await super()._shutdown(side_tasks=side_tasks)
        except (exceptions.ConnectorException, EngineError) as error:
            # Not an error: the commands' rows tell the truth.
            log.info("worker %s leaves its jobs behind: %s", self.worker_id, error)
        finally:
            await utils.cancel_and_capture_errors(side_tasks)

    @override
    async def _abort_running_jobs(self) -> None:
        running = list(self._running_jobs)
        for each in running:
            each.cancel()
        await asyncio.wait(running)

    async def _give_back(self) -> None:
        assert self.worker_id is not None
        if back := await self._ledger.give_back(self.worker_id):
            log.info("worker %d put %d jobs back", self.worker_id, back)


async def serve_jobs(
    url: str,
    run_command: RunCommand,
    *,
    places: Mapping[str, int],
    registered: Registered,
    bell: Bell,
    accepting: Accepting = lambda: True,
) -> None:
    """Run the queue's jobs until cancelled; each failure brings a fresh worker.

    `places`: how many of each queue at once. `registered` learns the id of each new worker: the end
    of the member puts its jobs back. `bell` rings when there may be some, taken while `accepting`.
    """
    async with QueueDatabase(
        url, name="engine_pg worker", pool_min=1, pool_max=1, bound_s=_BOUND_S, away_s=_AWAY_S
    ) as db:
        delay_s, asked = 0.2, cancellations()
        while True:
            began = boottime()
            app = procrastinate.App(connector=FollowingConnector(db))
            worker = FollowingWorker(
                app, db, run_command, places=places, registered=registered, accepting=accepting
            )
            try:
                async with Background() as background:
                    background.start(_wake_when_rung(worker, bell), name="queue doorbell")
                    await worker.run()
            except (exceptions.ProcrastinateException, EngineError) as error:
                if cancellations() > asked:
                    raise asyncio.CancelledError from error
                log.warning("the worker failed and is started anew: %s", error.__cause__ or error)
            if boottime() - began > 1.0:
                delay_s = 0.2
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 1.0)


async def _wake_when_rung(worker: FollowingWorker, bell: Bell) -> None:
    while True:
        if await bell.wait(_POLL_S):
            worker.wake()

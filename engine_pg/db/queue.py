"""Procrastinate's worker, made to outlive the database: its connector, its worker, its supervision.

Stock 3.10 loses LISTEN for ever at a restart, stops with success after one, leaves a finished job
`doing`, and stops beating while it drains. Each override below mends one of these; they touch
private parts, so the minor version is pinned and tests hold them to it. What a lost job leaves
behind is nothing: a job is one disposable run of a command, and whoever finds a command without
one defers it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, LiteralString
from uuid import UUID

import procrastinate
import psycopg
import psycopg_pool
from procrastinate import connector, exceptions, jobs, manager, utils
from procrastinate.worker import Worker
from typing_extensions import override

from engine_pg.db.listener import Bell
from engine_pg.db.wire import KEEPALIVE
from engine_pg.errors import EngineError
from engine_pg.supervisor import Background

log = logging.getLogger(__name__)

QUEUE: Final = "commands"
_QUERY_BOUND_S: Final = 8.0
_HEARTBEAT_S: Final = 5.0
_POLL_S: Final = 1.0
_STALLED_S: Final = 600.0  # the end of a member puts its jobs back long before

DELETE: Final = """
delete from procrastinate_jobs
 where id = %(job)s and worker_id = %(worker)s and status = 'doing'
"""
PUT_BACK: Final = """
update procrastinate_jobs set status = 'todo', attempts = attempts + 1, worker_id = null
 where id = %(job)s and worker_id = %(worker)s and status = 'doing'
"""

RunCommand = Callable[[UUID], Awaitable[None]]
Registered = Callable[[int], Awaitable[None]]
Accepting = Callable[[], bool]


def transient(error: BaseException | None) -> bool:
    """Tell whether an error comes from a connection that a new one would mend."""
    while error is not None:
        if isinstance(
            error,
            psycopg_pool.PoolTimeout
            | psycopg_pool.PoolClosed
            | psycopg.OperationalError
            | psycopg.InterfaceError
            | psycopg.errors.ReadOnlySqlTransaction
            | TimeoutError,
        ):
            return True
        error = error.__cause__
    return False


class FollowingConnector(procrastinate.PsycopgConnector):
    """Outages are invisible to the worker; LISTEN comes back by itself."""

    def __init__(self, **pool: Any) -> None:  # noqa: ANN401 - psycopg_pool's own parameters
        super().__init__(**pool)  # pyright: ignore[reportUnknownMemberType] - bare Callable upstream
        self.reconnected: Callable[[], None] = lambda: None
        self.stopping = False

    @override
    async def execute_query_async(self, query: LiteralString, **arguments: Any) -> None:
        await self._insist(
            lambda: super(FollowingConnector, self).execute_query_async(query, **arguments)
        )

    @override
    async def execute_query_one_async(
        self, query: LiteralString, **arguments: Any
    ) -> dict[str, Any]:
        return await self._insist(
            lambda: super(FollowingConnector, self).execute_query_one_async(query, **arguments)
        )

    @override
    async def execute_query_all_async(
        self, query: LiteralString, **arguments: Any
    ) -> list[dict[str, Any]]:
        return await self._insist(
            lambda: super(FollowingConnector, self).execute_query_all_async(query, **arguments)
        )

    @override
    async def listen_notify(
        self, on_notification: connector.Notify, channels: Iterable[str]
    ) -> None:
        names = list(channels)
        while True:
            try:
                await super().listen_notify(on_notification=on_notification, channels=names)
            except exceptions.ConnectorException as error:
                if not transient(error):
                    raise
                log.info("the queue's listener lost its connection: %s", error.__cause__ or error)
            await asyncio.sleep(0.2)
            self.reconnected()  # what was inserted while nobody listened

    async def _insist(self, query: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - passes through
        delay_s = 0.1
        while True:
            try:
                async with asyncio.timeout(_QUERY_BOUND_S):
                    return await query()
            except (exceptions.ConnectorException, TimeoutError) as error:
                if self.stopping or not transient(error):
                    raise
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.6, 1.0)


class HesitantJobs(manager.JobManager):
    """Fetches nothing while its node takes no new work, however many jobs wait."""

    accepting: Accepting

    @override
    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> jobs.Job | None:
        return await super().fetch_job(queues, worker_id) if self.accepting() else None


class FollowingWorker(Worker):
    """A worker that stops only when it is told to, or when its row is gone."""

    registered: Registered
    _rings = 0

    @override
    def stop(self) -> None:
        """Stop; queries that fail are not tried again from now on."""
        if isinstance(self.app.connector, FollowingConnector):
            self.app.connector.stopping = True
        super().stop()

    def wake(self) -> None:
        """Look for jobs now."""
        self._rings += 1
        self._new_job_event.set()

    @override
    async def _run_loop(self) -> None:
        if self.worker_id is not None:
            await self.registered(self.worker_id)
        await super()._run_loop()

    @override
    async def _handle_notification(self, *, channel: str, notification: jobs.Notification) -> None:
        self._rings += 1
        await super()._handle_notification(channel=channel, notification=notification)

    @override
    async def _fetch_and_process_jobs(self) -> None:
        """Fetch again when a doorbell rang meanwhile: stock silences it after the fetch."""
        heard = -1
        while heard != self._rings and not self._stop_event.is_set():
            heard = self._rings
            await super()._fetch_and_process_jobs()

    @override
    async def _monitor_side_tasks(self, side_tasks: list[asyncio.Task[Any]]) -> None:
        """Watch all side tasks: stock stops watching when the first one returns."""
        pending = set(side_tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for job in done:
                if not job.cancelled() and (error := job.exception()) is not None:
                    log.warning("the worker's %s failed: %s", job.get_name(), error)
                    self.stop()
                    return

    @override
    async def _persist_job_status(
        self, job: jobs.Job, status: jobs.Status, *_args: Any, **_kwargs: Any
    ) -> None:
        """Delete the job if it still is ours; one that was interrupted goes back.

        A status that can't be written is not an error: the command's row tells the truth.
        """
        query = PUT_BACK if status == jobs.Status.ABORTED else DELETE
        try:
            await self.app.connector.execute_query_async(
                query=query, job=job.id, worker=self.worker_id
            )
        except (exceptions.ConnectorException, TimeoutError) as error:
            log.info("job %s: its end is not recorded: %s", job.id, error.__cause__ or error)

    @override
    async def _shutdown(self, side_tasks: list[asyncio.Task[Any]]) -> None:
        """Beat until the last job has ended."""
        beating = [job for job in side_tasks if job.get_name() == "update_heartbeats"]
        await utils.cancel_and_capture_errors([job for job in side_tasks if job not in beating])
        try:
            await super()._shutdown(side_tasks=[])
        finally:
            await utils.cancel_and_capture_errors(beating)


def _app(url: str, run_command: RunCommand, size: int, accepting: Accepting) -> procrastinate.App:
    app = procrastinate.App(
        connector=FollowingConnector(
            conninfo=url,
            min_size=1,
            max_size=size,
            timeout=3,
            reconnect_timeout=1,
            kwargs={"application_name": "engine_pg worker"} | KEEPALIVE,
        )
    )

    app.job_manager = HesitantJobs(app.connector)
    app.job_manager.accepting = accepting

    @app.task(name="run_command", queue=QUEUE)
    async def run_one(command_id: str) -> None:  # pyright: ignore[reportUnusedFunction] - registered
        await run_command(UUID(command_id))

    return app


async def serve_jobs(
    url: str,
    run_command: RunCommand,
    *,
    concurrency: int,
    registered: Registered,
    bell: Bell,
    accepting: Accepting = lambda: True,
) -> None:
    """Run the queue's jobs until cancelled; each failure brings a fresh pool and worker.

    `registered` learns the id of each new worker: the end of the member puts its jobs back. `bell`
    rings when somebody put jobs back: Procrastinate itself rings for new ones only. While it is not
    `accepting`, no further job is fetched.
    """
    delay_s = 0.2
    while True:
        app = _app(url, run_command, 3 + concurrency // 4, accepting)
        try:
            async with app.open_async():
                delay_s = 0.2
                worker = _worker(app, concurrency, registered)
                async with Background() as background:
                    background.start(_wake_when_rung(worker, bell), name="queue doorbell")
                    await worker.run()
        except (
            exceptions.ProcrastinateException,
            psycopg.Error,
            EngineError,
            TimeoutError,
        ) as error:
            log.warning("the worker failed and is started anew: %s", error.__cause__ or error)
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, 1.0)


async def _wake_when_rung(worker: FollowingWorker, bell: Bell) -> None:
    while True:
        if await bell.wait(_POLL_S):
            worker.wake()


def _worker(app: procrastinate.App, concurrency: int, registered: Registered) -> FollowingWorker:
    worker = FollowingWorker(
        app,
        queues=[QUEUE],
        concurrency=concurrency,
        fetch_job_polling_interval=_POLL_S,
        shutdown_graceful_timeout=5.0,
        delete_jobs=jobs.DeleteJobCondition.ALWAYS,
        install_signal_handlers=False,
        update_heartbeat_interval=_HEARTBEAT_S,
        stalled_worker_timeout=_STALLED_S,
    )
    worker.registered = registered
    if isinstance(app.connector, FollowingConnector):
        app.connector.reconnected = worker.wake
    return worker

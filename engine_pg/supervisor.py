"""The one place that starts what nobody awaits on the spot, so that none leaks or fails in silence.

`Background` keeps jobs beside a block; `uninterrupted` lets a step end whatever befalls its caller.
A plain `asyncio.TaskGroup` is still the way to run things side by side and wait for all of them.

Does not promise: that a coroutine which swallows its cancellation ends; who waits, waits with it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from engine_pg.clock import boottime

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

T = TypeVar("T")

GRACE_S: Final = 1.0
"""How long `on_timeout` may take to end the coroutine before it is cancelled after all."""

AGAIN_S: Final = 5.0
"""How long a cancelled job may take to end before it is cancelled once more."""

log = logging.getLogger(__name__)


class Background:
    """Jobs beside an `async with` block: leaving the block cancels them and waits for their end.

    A job that fails is logged, cancels the others and the block, and surfaces from the block in an
    `ExceptionGroup`, as in a `TaskGroup`. The block's own exception leaves it unwrapped.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._jobs: set[asyncio.Task[Any]] = set()
        self._insisting: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cancel()
        try:
            if isinstance(error, asyncio.CancelledError):
                await self._group.__aexit__(kind, error, traceback)
            else:  # the group would wrap the block's own exception
                await self._group.__aexit__(None, None, None)
        finally:
            if self._insisting is not None:
                self._insisting.cancel()

    def _cancel(self) -> None:
        for job in self._jobs:
            job.cancel()
        self._insisting = asyncio.get_running_loop().call_later(AGAIN_S, self._insist)

    def _insist(self) -> None:
        """Cancel again what is still there: `asyncio.wait_for` of Python 3.11 may drop it."""
        for job in self._jobs:
            log.warning("%s has not ended, and is cancelled again", job.get_name())
        self._cancel()

    def start(self, coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run a coroutine until it ends or the block does."""
        try:
            job = self._group.create_task(coro, name=name)
        except RuntimeError:  # the block is over, or about to be
            coro.close()
            raise
        self._jobs.add(job)
        job.add_done_callback(self._ended)
        return job

    def _ended(self, job: asyncio.Task[Any]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            log.error("%s failed", job.get_name(), exc_info=error)


def cancellations() -> int:
    """Return how often the running coroutine was cancelled: that also counts what was dropped.

    A library drops a cancellation where another error, or a success, comes at the same moment.
    """
    running = asyncio.current_task()
    assert running is not None
    return running.cancelling()


async def uninterrupted(
    coro: Coroutine[Any, Any, T],
    bound_s: float,
    on_timeout: Callable[[], None] | None = None,
) -> T:
    """Await a coroutine that the caller's cancellation neither interrupts nor outlives.

    A cancelled caller first waits for the coroutine's end, then raises `CancelledError`, caused by
    the coroutine's own error if it had one. That wait ends `bound_s` after the start: `on_timeout`
    is then to make the coroutine fail (by shutting its socket down, say); where there is none, or
    it does not help within `GRACE_S`, the coroutine is cancelled. Without a cancellation nothing is
    bounded: put `asyncio.timeout` around.
    """
    deadline = boottime() + bound_s
    job = asyncio.create_task(coro)  # noqa: TID251 - awaited below on every path
    try:
        await asyncio.wait([job])
    except BaseException as error:
        await _see_out(job, deadline, on_timeout)
        raise error from _failure(job)
    return job.result()


async def _see_out(
    job: asyncio.Task[Any], deadline: float, on_timeout: Callable[[], None] | None
) -> None:
    """Wait for the end of a job whose caller was cancelled, forcing it past the deadline."""
    if await _ended_by(job, deadline):
        return
    if on_timeout is not None:
        try:
            on_timeout()
        except Exception:
            log.exception("on_timeout failed")
        else:
            if await _ended_by(job, boottime() + GRACE_S):
                return
    job.cancel()
    await _ended_by(job, float("inf"))


async def _ended_by(job: asyncio.Task[Any], deadline: float) -> bool:
    """Wait until the deadline, absorbing further cancellations: one is raised at the end anyway."""
    while not job.done() and (left_s := deadline - boottime()) > 0:
        try:
            await asyncio.wait([job], timeout=None if left_s == float("inf") else left_s)
        except asyncio.CancelledError:
            continue
    return job.done()


def _failure(job: asyncio.Task[Any]) -> BaseException | None:
    if job.cancelled():
        return None
    error = job.exception()
    if error is not None:  # the cancellation that hides it may be dropped further up
        log.warning("a step failed while its caller was cancelled", exc_info=error)
    return error

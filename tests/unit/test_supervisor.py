"""Nothing started leaks, fails in silence, or is cut off before its end."""

import asyncio
import contextlib
import gc
import logging

import pytest

from engine_pg import supervisor
from engine_pg.clock import boottime
from engine_pg.supervisor import Background, uninterrupted

LONG_S = 60.0


class Broken(Exception):
    pass


@pytest.fixture(autouse=True)
def nothing_is_left_behind(monkeypatch):
    """Run each test under a loop whose complaints fail it."""
    complaints = []
    run = asyncio.run

    def checked_run(main):
        async def body():
            asyncio.get_running_loop().set_exception_handler(
                lambda _loop, context: complaints.append(context)
            )
            try:
                return await main
            finally:
                gc.collect()
                left = asyncio.all_tasks() - {asyncio.current_task()}
                assert not left, left

        return run(body())

    monkeypatch.setattr(asyncio, "run", checked_run)
    yield
    gc.collect()
    assert not complaints


async def cancelled_outcome(job: asyncio.Task) -> asyncio.CancelledError:
    with pytest.raises(asyncio.CancelledError) as caught:
        await job
    return caught.value


async def started(coro):
    """Start a coroutine as the caller under test and let it reach its first real wait."""
    caller = asyncio.ensure_future(coro)
    for _ in range(3):
        await asyncio.sleep(0)
    return caller


def test_the_result_passes_through():
    async def answer():
        await asyncio.sleep(0)
        return 42

    assert asyncio.run(uninterrupted(answer(), LONG_S)) == 42


def test_the_error_passes_through():
    async def fail():
        raise Broken

    async def main():
        with pytest.raises(Broken):
            await uninterrupted(fail(), LONG_S)

    asyncio.run(main())


def test_a_cancelled_caller_waits_for_the_end_before_it_is_cancelled():
    async def main():
        release, ended = asyncio.Event(), []

        async def step():
            await release.wait()
            ended.append(True)

        caller = await started(uninterrupted(step(), LONG_S))
        caller.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not caller.done()
        release.set()
        await cancelled_outcome(caller)
        assert ended == [True]

    asyncio.run(main())


def test_repeated_cancellations_do_not_cut_the_wait_short():
    async def main():
        release, ended = asyncio.Event(), []

        async def step():
            await release.wait()
            ended.append(True)

        caller = await started(uninterrupted(step(), LONG_S))
        for _ in range(5):
            caller.cancel()
            await asyncio.sleep(0)
        assert not caller.done()
        release.set()
        await cancelled_outcome(caller)
        assert ended == [True]

    asyncio.run(main())


def test_a_cancellation_that_meets_the_end_still_cancels_the_caller():
    async def main():
        release = asyncio.Event()
        caller = await started(uninterrupted(release.wait(), LONG_S))
        release.set()
        caller.cancel()
        await cancelled_outcome(caller)

    asyncio.run(main())


def test_a_caller_cancelled_before_its_first_wait_runs_the_step():
    async def main():
        ran = []

        async def step():
            ran.append(True)

        async def body():
            asyncio.current_task().cancel()
            await uninterrupted(step(), LONG_S)

        await cancelled_outcome(asyncio.ensure_future(body()))
        assert ran == [True]

    asyncio.run(main())


def test_past_the_bound_on_timeout_ends_the_step():
    async def main():
        socket_gone = asyncio.Event()

        async def step():
            await socket_gone.wait()
            raise Broken("the socket is gone")

        caller = await started(uninterrupted(step(), 0.02, socket_gone.set))
        caller.cancel()
        error = await cancelled_outcome(caller)
        assert isinstance(error.__cause__, Broken)

    asyncio.run(main())


def test_the_bound_counts_from_the_start_not_from_the_cancellation():
    async def main():
        calls = []
        release = asyncio.Event()

        def cut():
            calls.append(boottime())
            release.set()

        caller = await started(uninterrupted(release.wait(), 0.1, cut))
        await asyncio.wait([caller], timeout=0.12)
        assert not calls  # not cancelled: nothing is bounded
        cancelled_at = boottime()
        caller.cancel()
        await cancelled_outcome(caller)
        assert calls
        assert calls[0] - cancelled_at < 0.09

    asyncio.run(main())


def test_on_timeout_is_not_called_when_the_step_ends_in_time():
    async def main():
        calls = []
        release = asyncio.Event()
        caller = await started(uninterrupted(release.wait(), LONG_S, lambda: calls.append(1)))
        caller.cancel()
        await asyncio.sleep(0)
        release.set()
        await cancelled_outcome(caller)
        assert not calls

    asyncio.run(main())


@pytest.mark.parametrize("on_timeout", [None, lambda: None, lambda: 1 / 0])
def test_past_the_bound_a_step_that_nothing_ends_is_cancelled(monkeypatch, on_timeout):
    monkeypatch.setattr(supervisor, "GRACE_S", 0.02)

    async def main():
        seen = []

        async def step():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        caller = await started(uninterrupted(step(), 0.01, on_timeout))
        caller.cancel()
        error = await cancelled_outcome(caller)
        assert error.__cause__ is None
        assert seen == ["cancelled"]

    asyncio.run(main())


def test_an_error_behind_a_cancellation_is_logged_and_chained(caplog):
    async def main():
        release = asyncio.Event()

        async def step():
            await release.wait()
            raise Broken("too late")

        caller = await started(uninterrupted(step(), LONG_S))
        caller.cancel()
        await asyncio.sleep(0)
        release.set()
        error = await cancelled_outcome(caller)
        assert isinstance(error.__cause__, Broken)

    with caplog.at_level(logging.WARNING, logger="engine_pg.supervisor"):
        asyncio.run(main())
    assert "too late" in caplog.text


def test_a_timeout_around_it_is_a_timeout_after_the_step_has_ended():
    async def main():
        ended = []

        async def step():
            await asyncio.sleep(0.05)
            ended.append(True)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await uninterrupted(step(), LONG_S)
        assert ended == [True]

    asyncio.run(main())


def test_the_background_ends_with_its_block():
    async def main():
        async with Background() as background:
            job = background.start(asyncio.Event().wait(), name="forever")
            await asyncio.sleep(0)
        assert job.cancelled()

    asyncio.run(main())


def test_a_job_gives_its_result_to_whoever_awaits_it():
    async def main():
        async with Background() as background:
            return await background.start(asyncio.sleep(0, "done"), name="short")

    assert asyncio.run(main()) == "done"


def test_a_failed_job_is_logged_and_fails_the_block_and_the_other_jobs(caplog):
    async def fail():
        raise Broken("no luck")

    async def main():
        jobs = []

        async def body():
            async with Background() as background:
                jobs.append(background.start(asyncio.Event().wait(), name="other"))
                background.start(fail(), name="doomed")
                await asyncio.Event().wait()

        with pytest.raises(ExceptionGroup) as caught:
            await body()
        assert caught.group_contains(Broken)
        assert jobs[0].cancelled()

    asyncio.run(main())
    assert "doomed failed" in caplog.text
    assert "no luck" in caplog.text


def test_a_job_that_fails_while_the_block_ends_is_not_lost(caplog):
    async def fail_when_cancelled():
        try:
            await asyncio.Event().wait()
        finally:
            raise Broken("cannot tidy up")

    async def main():
        async def body():
            async with Background() as background:
                background.start(fail_when_cancelled(), name="doomed")
                await asyncio.sleep(0)

        with pytest.raises(ExceptionGroup) as caught:
            await body()
        assert caught.group_contains(Broken)

    asyncio.run(main())
    assert "cannot tidy up" in caplog.text


def test_a_job_that_lost_its_cancellation_is_cancelled_again(monkeypatch, caplog):
    monkeypatch.setattr(supervisor, "AGAIN_S", 0.02)

    async def deaf():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(LONG_S)
        await asyncio.sleep(LONG_S)

    async def main():
        async with Background() as background:
            background.start(deaf(), name="a deaf job")
            await asyncio.sleep(0)

    asyncio.run(main())
    assert "a deaf job has not ended, and is cancelled again" in caplog.text


def test_the_blocks_own_error_leaves_unwrapped_and_ends_the_jobs():
    async def main():
        jobs = []

        async def body():
            async with Background() as background:
                jobs.append(background.start(asyncio.Event().wait(), name="forever"))
                raise Broken

        with pytest.raises(Broken):
            await body()
        assert jobs[0].cancelled()

    asyncio.run(main())


def test_a_cancelled_block_ends_its_jobs_and_stays_cancelled():
    async def main():
        jobs = []

        async def body():
            async with Background() as background:
                jobs.append(background.start(asyncio.Event().wait(), name="forever"))
                await asyncio.Event().wait()

        caller = await started(body())
        caller.cancel()
        await cancelled_outcome(caller)
        assert jobs[0].cancelled()

    asyncio.run(main())


def test_nothing_starts_after_the_block():
    async def main():
        async with Background() as background:
            pass
        with pytest.raises(RuntimeError):
            background.start(asyncio.sleep(0), name="late")

    asyncio.run(main())


def test_an_unstarted_job_is_dropped_quietly_with_its_block():
    async def main():
        async with Background() as background:
            background.start(asyncio.sleep(0), name="never run")

    asyncio.run(main())


def test_a_step_within_a_step_ends_too():
    async def main():
        release, ended = asyncio.Event(), []

        async def inner():
            await release.wait()
            ended.append("inner")

        async def outer():
            await uninterrupted(inner(), LONG_S)
            ended.append("outer")

        caller = await started(uninterrupted(outer(), LONG_S))
        caller.cancel()
        await asyncio.sleep(0)
        release.set()
        await cancelled_outcome(caller)
        assert ended == ["inner", "outer"]

    asyncio.run(main())

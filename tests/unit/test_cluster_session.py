"""Where the caller of an operation waits: no answer is lost between it and a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from engine_pg.cluster.ops import Asked
from engine_pg.errors import Unavailable


def test_an_answer_reaches_its_caller():
    async def story():
        handed_back = []
        asked = Asked[str](abandoned=handed_back.append)
        asked.answer("granted")
        assert await asked.wait() == "granted"
        assert handed_back == []

    asyncio.run(story())


def test_an_answer_after_a_cancellation_is_handed_back():
    async def story():
        handed_back = []
        asked = Asked[str](abandoned=handed_back.append)
        waiting = asyncio.ensure_future(asked.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        asked.answer("granted")
        assert handed_back == ["granted"]

    asyncio.run(story())


def test_an_answer_that_meets_a_cancellation_is_handed_back():
    async def story():
        handed_back = []
        asked = Asked[str](abandoned=handed_back.append)
        waiting = asyncio.ensure_future(asked.wait())
        await asyncio.sleep(0)
        asked.answer("granted")  # the caller is about to run, and is cancelled first
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert handed_back == ["granted"]

    asyncio.run(story())


def test_a_refusal_reaches_its_caller_once():
    async def story():
        asked = Asked[str](abandoned=lambda _: None)
        asked.refuse(Unavailable("away"))
        asked.refuse(Unavailable("still away"))
        with pytest.raises(Unavailable, match=r"^away$"):
            await asked.wait()

    asyncio.run(story())

"""How soon a commit is known elsewhere, at 200 a second; and who loses what while away."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from benchmarks.feed.carriers import CARRIERS, Carrier, Reader, opened
from benchmarks.feed.part import Found, Part
from benchmarks.feed.writer import Orders
from benchmarks.feed.writing import writing
from benchmarks.ground import Ground, Missing
from benchmarks.locks.rounds import spread_ms
from engine_pg.clock import boottime

RATE: Final = 200.0
WRITERS: Final = 8
AWAY_S: Final = 1.0
_WARM_UP_S: Final = 0.5
_STOPPED_S: Final = 30.0
_AGAIN_S: Final = 0.1
_LATE_S: Final = 3.0
"""How long what was written last may take to come."""


async def measure(place: Ground, seconds: float) -> Found:
    """Measure every carrier."""
    details: dict[str, Any] = {"rate": RATE, "away_s": AWAY_S}
    for carrier in CARRIERS:
        try:
            details[carrier.kind] = await _measured(carrier, place, 2 * seconds)
        except Missing as missing:
            details[carrier.kind] = {"what": carrier.what, "why_not": str(missing)}
    ours = details["ours"]["applied_after"]
    figures = {f"propagation_{name}": ours[name] for name in ("p50_ms", "p99_ms")}
    return Found(details, figures)


async def _measured(carrier: Carrier, place: Ground, seconds: float) -> dict[str, Any]:
    async with opened(carrier, place) as reader:
        written, came = await _followed(carrier, reader, seconds, first=0, away_s=0.0)
        told: dict[str, Any] = {"what": carrier.what, "written": len(written)}
        early = min(written.values()) + _WARM_UP_S
        delays = [came[n] - at for n, at in written.items() if n in came and at > early]
        told["applied_after"] = spread_ms([max(0.0, each) for each in delays])
        written, came = await _followed(carrier, reader, 3.0, first=1_000_000, away_s=AWAY_S)
        away = {"written": len(written), "lost": len(written.keys() - came.keys())}
    return {**told, "away": away}


async def _followed(
    carrier: Carrier, reader: Reader, seconds: float, *, first: int, away_s: float
) -> tuple[dict[int, float], dict[int, float]]:
    """Return when each number was acknowledged, and when it came."""
    came: dict[int, float] = {}

    def take(n: int) -> None:
        came.setdefault(n, boottime())

    orders = Orders(reader.url, carrier.kind, seconds, WRITERS, RATE, first)
    async with asyncio.TaskGroup() as group, writing(orders) as writers:
        reading = group.create_task(reader.read(take))
        await asyncio.sleep(_WARM_UP_S)
        running = group.create_task(writers.run())
        if away_s:
            await asyncio.sleep(seconds / 3)
            await _stop(reading)
            await asyncio.sleep(away_s)
            reading = group.create_task(reader.read(take))
        ((said),) = await running
        written: dict[int, float] = dict(said["done"])
        with suppress(TimeoutError):
            async with asyncio.timeout(_LATE_S):
                while not written.keys() <= came.keys():  # noqa: ASYNC110 - nothing is timed here
                    await asyncio.sleep(0.02)
        await _stop(reading)
    return written, came


async def _stop(reading: asyncio.Task[None]) -> None:
    """Cancel until it is heard: redis-py loses a cancellation that comes with an answer."""
    deadline = boottime() + _STOPPED_S
    while not reading.done() and boottime() < deadline:
        reading.cancel()
        await asyncio.wait([reading], timeout=_AGAIN_S)


PART: Final = Part(measure, figures=("propagation_p50_ms", "propagation_p99_ms"))

"""Time that moves only when it is told to: a clock, and an event loop that lives by it."""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import Callable
from typing import Any

from hypothesis import settings

LONGER = int(os.environ.get("ENGINE_TEST_STATEFUL_SCALE", "1"))


class VirtualClock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class _Idle(selectors.SelectSelector):
    """Ends the loop's run instead of waiting."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout != 0:
            self.loop.stop()
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs whatever is ready, then stops; its timers follow a clock of ours."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.failures: list[dict[str, Any]] = []
        idle = _Idle()
        super().__init__(idle)
        idle.loop = self
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self._clock.now

    def settle(self) -> None:
        """Run until nothing is ready."""
        self.run_forever()
        assert self.failures == []

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function inside of the loop, and run what it caused."""
        self.call_soon(function, *arguments)
        self.settle()

    def sleep(self, seconds: float) -> None:
        """Let time pass in one leap, as for a process that was not scheduled."""
        self._clock.now += seconds
        self.settle()


def machine_settings(examples: int, steps: int) -> settings:
    """Return a machine's settings; ENGINE_TEST_STATEFUL_SCALE multiplies its examples."""
    return settings(
        max_examples=examples * LONGER,
        stateful_step_count=steps,
        deadline=None,
        derandomize=LONGER == 1,
        print_blob=True,
    )

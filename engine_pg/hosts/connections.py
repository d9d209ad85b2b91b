"""One live connection for each host that a node talks to, opened when first needed.

Does not promise: that a connection it hands out is still alive a moment later; the next call on it
then raises `HostUnreachable`, and the next `get` opens a new one.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from engine_pg.errors import EngineError, HostUnreachable, Unavailable
from engine_pg.supervisor import Background

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType
    from uuid import UUID

    from engine_pg.hosts.driver import HostDriver, OpCtx

MAX_HOSTS: Final = 4096


log = logging.getLogger(__name__)

Outcome = asyncio.Future["HostDriver | EngineError"]


@dataclass(frozen=True, slots=True)
class _Line:
    """One connection, from the attempt to its end."""

    place: tuple[str, int]
    opened: Outcome
    job: asyncio.Task[None]


class HostConnections:
    """A node's host connections; an `async with` block around their use ends them all."""

    def __init__(
        self, make: Callable[[str, int], HostDriver], *, max_hosts: int = MAX_HOSTS
    ) -> None:
        self._make = make
        self._max_hosts = max_hosts
        self._background = Background()
        self._lines: dict[UUID, _Line] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._background.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        await self._background.__aexit__(kind, error, traceback)

    async def get(self, host_id: UUID, address: str, port: int, ctx: OpCtx) -> HostDriver:
        """Return the host's connection, opened on demand; who asks meanwhile shares the attempt."""
        try:
            async with asyncio.timeout(ctx.timeout_s):
                line = await self._line(host_id, (address, port), ctx)
                outcome = await asyncio.shield(line.opened)
        except TimeoutError:
            reason = f"{address}:{port}: not connected within {ctx.timeout_s} s"
            raise HostUnreachable(reason) from None
        if isinstance(outcome, EngineError):
            raise type(outcome)(*outcome.args) from outcome  # one attempt may fail many callers
        return outcome

    async def drop(self, host_id: UUID) -> None:
        """Close the host's connection, if there is one."""
        line = self._lines.pop(host_id, None)
        if line is not None:
            await _end([line])

    async def close(self) -> None:
        """Close all connections and open no more."""
        self._closed = True
        lines, self._lines = self._lines, {}
        await _end(lines.values())

    async def _line(self, host_id: UUID, place: tuple[str, int], ctx: OpCtx) -> _Line:
        while (line := self._lines.get(host_id)) is not None and line.place != place:
            await self.drop(host_id)
        if line is not None:
            return line
        if self._closed:
            raise HostUnreachable("the node closes its host connections")
        if len(self._lines) >= self._max_hosts:
            raise Unavailable(f"{self._max_hosts} host connections are open already")
        opened: Outcome = asyncio.get_running_loop().create_future()
        keeping = self._keep(host_id, place, opened, ctx)
        line = _Line(place, opened, self._background.start(keeping, name=f"host {host_id}"))
        line.job.add_done_callback(lambda _: self._forget(host_id, opened))
        self._lines[host_id] = line
        return line

    async def _keep(
        self, host_id: UUID, place: tuple[str, int], opened: Outcome, ctx: OpCtx
    ) -> None:
        """Open a connection, forget it as soon as it is lost, and close it in any case."""
        driver = self._make(*place)
        try:
            await driver.connect(replace(ctx, held=()))  # shared: one caller's rights don't count
            opened.set_result(driver)
            async for _ in driver.events():
                pass
        except EngineError as error:
            _settle(opened, error)
        except Exception as error:  # one host must not end its node, and the next, and the next
            log.exception("the connection to host %s broke", host_id)
            _settle(opened, EngineError(f"the connection broke: {error}"))
        finally:
            self._forget(host_id, opened)
            await driver.close()

    def _forget(self, host_id: UUID, opened: Outcome) -> None:
        _settle(opened, HostUnreachable("the connection attempt was dropped"))
        line = self._lines.get(host_id)
        if line is not None and line.opened is opened:
            del self._lines[host_id]


def _settle(opened: Outcome, error: EngineError) -> None:
    if not opened.done():
        opened.set_result(error)


async def _end(lines: Collection[_Line]) -> None:
    for line in lines:
        line.job.cancel()
    if lines:
        await asyncio.wait([line.job for line in lines])

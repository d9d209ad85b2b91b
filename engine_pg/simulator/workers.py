"""The workers of a host: they take calls through the faults and the gate to the machine.

Eight work, eighty more may wait, and the rest is turned away, as in VDSM. What passes the gate acts
in the same instant, so no newer token can come between; the call then keeps its worker for a while,
which is the time in which the journal sees it overlap with others. A call outlives its connection.
A call that a fault holds occupies no worker: it is stuck on the wire, not in the host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from engine_pg.errors import Invalid
from engine_pg.hosts.vdsm.constants import ENGINE_FENCE, STALE, ErrorCode
from engine_pg.simulator.answers import CallFailed
from engine_pg.simulator.connection import Incoming
from engine_pg.simulator.faults import Holds, When
from engine_pg.simulator.gate import Gate, Grant, Stale, parse_grants
from engine_pg.simulator.machine import Boot, Machine
from engine_pg.simulator.verbs import Arguments, Verb

AT_WORK: Final = 8
WAITING: Final = 80
MAX_HELD: Final = 10_000
_MAX_TEXT: Final = 200

Answer = object | CallFailed


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One request on its way."""

    request_id: object
    method: str
    verb: Verb
    arguments: Arguments
    fence: object
    vm_id: str | None
    incoming: Incoming
    received: float

    def description(self) -> dict[str, Any]:
        """Return what the journal says about the call, big things left out."""
        return {
            "connection": self.incoming.origin.connection,
            "peer": self.incoming.origin.peer,
            "correlation_id": self.incoming.correlation_id[:_MAX_TEXT],
            "request_id": str(self.request_id)[:_MAX_TEXT],
            "method": self.method,
            "mutating": self.verb.mutating,
            "vm": self.vm_id,
            "params": {
                name: value
                for name, value in self.arguments.items()
                if isinstance(value, int | float | bool)
                or (isinstance(value, str) and len(value) <= _MAX_TEXT)
            },
            "received": round(self.received, 6),
        }


class _Unanswered(Exception):
    """The caller will never hear of this call."""


class Workers:
    """Runs the calls of one host."""

    def __init__(
        self,
        machine: Machine,
        gate: Gate,
        holds: Holds,
        record: Callable[..., int],
        durable: Callable[[], Awaitable[None]],
    ) -> None:
        self._machine = machine
        self._gate = gate
        self._holds = holds
        self._record = record
        self._durable = durable
        self._free = asyncio.Semaphore(AT_WORK)
        self._inside = 0
        self._held = 0
        self.calls = 0

    async def carry(self, call: Call, answer: Callable[[Answer], None]) -> None:
        """Bring a call to its end; whether anybody is told depends on faults and reboots."""
        boot = self._machine.boot
        self.calls += 1
        try:
            await self._pass(call, "before", boot)
            outcome = await self._work(call, boot)
            await self._pass(call, "after", boot)
        except _Unanswered as why:
            self._record("call_unanswered", why=str(why), **call.description())
        else:
            answer(outcome)

    async def _pass(self, call: Call, when: When, boot: Boot) -> None:
        hold = self._holds.find(call.method, when)
        if hold is not None:
            self._record("call_held", when=when, seconds=hold.seconds, **call.description())
            if hold.seconds is None or self._held >= MAX_HELD:
                raise _Unanswered("it hangs")
            self._held += 1
            try:
                await asyncio.sleep(hold.seconds)
            finally:
                self._held -= 1
        self._survive(boot)

    def _survive(self, boot: Boot) -> None:
        if self._machine.boot is not boot:
            raise _Unanswered("the host rebooted")

    async def _work(self, call: Call, boot: Boot) -> Answer:
        if self._inside >= AT_WORK + WAITING:
            self._record("call_rejected", code=ErrorCode.QUEUE_FULL, **call.description())
            return CallFailed(ErrorCode.QUEUE_FULL, "Too many tasks")
        self._inside += 1
        try:
            async with self._free:
                self._survive(boot)
                return await self._perform(call)
        finally:
            self._inside -= 1

    async def _perform(self, call: Call) -> Answer:
        number, refusal = self._admit(call)
        outcome = refusal or self._act(call)
        if call.verb.mutating and refusal is None:
            await asyncio.sleep(self._machine.spec.timing.work_s)
        failed = isinstance(outcome, CallFailed)
        self._record(
            "call_ended",
            call=number,
            method=call.method,
            vm=call.vm_id,
            ok=not failed,
            code=outcome.code if failed else 0,
            message=str(outcome) if failed else "",
        )
        if call.verb.mutating:
            await self._durable()
        return outcome

    def _admit(self, call: Call) -> tuple[int, CallFailed | None]:
        """Ask the gate; in the journal the answer stands before whatever the call does."""
        grants, problem = _grants(call)
        stale = self._gate.stale(grants)
        refusal = self._refusal(call, grants, stale, problem)
        number = self._record(
            "call_begun",
            fence=[grant.as_json() for grant in grants],
            would_be_stale=stale is not None,
            refused=refusal is not None,
            **call.description(),
        )
        if refusal is None:
            self._gate.accept(grants)
        return number, refusal

    def _refusal(
        self, call: Call, grants: tuple[Grant, ...], stale: Stale | None, problem: str
    ) -> CallFailed | None:
        if self._machine.spec.fencing == "none":
            return None
        if problem:
            return CallFailed(ErrorCode.INVALID_PARAMETERS, f"{ENGINE_FENCE}: {problem}")
        if stale is not None:
            return CallFailed(STALE, stale.reason)
        if call.verb.mutating and not grants:
            return CallFailed(
                ErrorCode.MISSING_PARAMETER, f"{call.method} changes something: no {ENGINE_FENCE}"
            )
        return None

    def _act(self, call: Call) -> Answer:
        try:
            call.verb.require(call.arguments)
            return call.verb.run(self._machine, call.arguments)
        except CallFailed as failed:
            return failed


def _grants(call: Call) -> tuple[tuple[Grant, ...], str]:
    """Return the grants of a call, or what is wrong with them."""
    if call.fence is None:
        return (), ""
    try:
        return parse_grants(call.fence), ""
    except Invalid as error:
        return (), str(error)

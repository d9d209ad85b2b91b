"""A node that runs commands, in a process of its own, and stops where it is told to.

    DATABASE_URL NODE [--poison] [--limit N] [--ttl S] [--via PORT=PORT]...

It says "ready" when it is a member, and takes work from a line `work` on until a line `rest`.
`work COMMAND/STEP/PLACE`: at this boundary it says so and waits until it is continued.
`work ... STEP`: the command fails at the last moment of this step. With `--poison` it knows the
command `poison`, which ends the process. Hosts of the first port are reached over the second one.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any
from uuid import UUID

from integration.nodes import eventually, swallow_end
from integration.trials import Trial

from engine_pg.cluster.membership import Lease, Membership
from engine_pg.cluster.ops import Identity
from engine_pg.commands.definition import Definition
from engine_pg.commands.registry import REGISTRY
from engine_pg.commands.run import Patience
from engine_pg.commands.runner import Runner
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.errors import Conflict
from engine_pg.hosts.connections import HostConnections
from engine_pg.hosts.vdsm.client import VdsmDriver
from engine_pg.ids import new_id
from engine_pg.singletons import adoption
from engine_pg.supervisor import Background
from engine_pg.worker import work

PATIENCE = Patience(host_call_s=1.0, host_inflight_s=0.5)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def known(*, poison: bool) -> dict[str, Definition]:
    """Return the commands of the product, and those of tests."""
    trial = Trial()

    async def kill(*_) -> None:
        os._exit(9)

    deadly = trial.host("kill", act=kill, changes_host=False)
    return (
        REGISTRY
        | (trial.definition("poison", trial.write("one"), deadly) if poison else {})
        | trial.definition("harmless", trial.write("one"), trial.write("two"))
    )


class Telling(Runner):
    """A runner that knows when it runs nothing."""

    running = 0

    async def run(self, command_id: UUID) -> None:
        self.running += 1
        try:
            await super().run(command_id)
        finally:
            self.running -= 1

    async def idle(self) -> None:
        async def nothing_runs() -> bool:
            return self.running == 0

        await eventually(nothing_runs)


class Orders:
    """What the lines said last."""

    def __init__(self) -> None:
        self.stop = self.fail = ""
        self.thawed = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCONT, self.thawed.set)

    async def reached(self, command: str, step: str, place: str) -> None:
        here = f"{command}/{step}/{place}"
        if self.stop == here:
            self.stop = ""
            say("at", here)
            await self.thawed.wait()
        if self.fail == step and place == "done":
            raise Conflict("it is to fail")

    async def follow(self, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Work and rest, as the lines say."""
        working: asyncio.Future[None] | None = None
        while line := await asyncio.to_thread(sys.stdin.readline):
            word, self.stop, self.fail = (*line.split(), "", "")[:3]
            if word == "work":
                working = asyncio.ensure_future(start())
            elif working is not None:
                working.cancel()
                await asyncio.wait([working])
            say(word)


async def live(options: argparse.Namespace) -> None:
    ways = dict(tuple(map(int, each.split("="))) for each in options.via)

    def driver(address: str, port: int) -> VdsmDriver:
        return VdsmDriver(address, ways.get(port, port), connect_timeout_s=1.0)

    registry = known(poison=options.poison)
    bells, orders = Doorbells(options.url), Orders()
    async with (
        Database(options.url, name=options.node, pool_max=8) as db,
        HostConnections(driver) as hosts,
        Background() as background,
    ):
        background.start(bells.run(), name="bells")
        membership = Membership(
            db,
            Identity(new_id(), options.node),
            bells=bells,
            lease=Lease(options.ttl, options.ttl / 10, options.ttl / 10),
            weight=1.0,
        )
        membership.leaders.register(adoption.NAME, adoption.Adoption(membership.fencing, bells).run)
        runner = Telling(
            membership,
            db,
            hosts,
            bells,
            registry,
            patience=lambda: PATIENCE,
            limit=lambda: options.limit,
            reached=orders.reached,
        )
        await membership.join()
        say("ready")
        background.start(runner.watch(), name="halts")
        working = partial(work, db, membership, runner, bells, concurrency=8, urgent_concurrency=2)
        background.start(orders.follow(working), name="orders")
        await swallow_end(membership.run())
        await runner.idle()
        say("ended")
        os._exit(0)  # its reader of lines can't be ended


def employed(line: socket.socket, words: list[str]) -> None:
    """Be such a node, and have its lines over a socket."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("node")
    parser.add_argument("--poison", action="store_true")
    parser.add_argument("--limit", type=int, default=5)
    parser.add_argument("--ttl", type=float, default=1.0)
    parser.add_argument("--via", action="append", default=[], metavar="PORT=PORT")
    sys.stdin, sys.stdout = line.makefile("r"), line.makefile("w")
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(live(parser.parse_args(words)))

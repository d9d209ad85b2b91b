"""`python -m jobstorm.node URL NAME`: a member in a process of its own, there to be killed."""

from __future__ import annotations

import asyncio
import logging
import sys

import uvloop

from benchmarks.jobs.ours import serve
from engine_pg.cluster.fence import FencedTx
from engine_pg.cluster.membership import Lease
from engine_pg.commands.definition import Definition, WriteStep
from engine_pg.commands.run import Run
from engine_pg.db.tx import Record

NAME = "witnessed"
LEASE = Lease(ttl_s=2.0, margin_s=0.2, heartbeat_s=0.4)
WITNESS = """
insert into witness (command_id, step, attempt) values (%(command_id)s, %(step)s, %(attempt)s)
"""
STEPS = ("first", "second", "last")


def _step(name: str) -> WriteStep:
    async def prepare(run: Run) -> None:
        sys.stdout.write("works\n")
        sys.stdout.flush()
        await asyncio.sleep(run.params["hold_s"] / len(STEPS))

    async def write(run: Run, tx: FencedTx) -> Record:
        claim = run.claim
        params = {"command_id": claim.command_id, "step": name, "attempt": claim.attempt}
        await tx.run(WITNESS, params)
        return {"attempt": claim.attempt}

    return WriteStep(name=name, title=name, prepare=prepare, write=write)


DEFINITION = Definition(
    name=NAME,
    subject_kind="test",
    describe=lambda _params: "being witnessed",
    locks=lambda _command: (),
    steps=tuple(map(_step, STEPS)),
    event=lambda _run, _error: None,
)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    uvloop.run(serve(sys.argv[1], sys.argv[2], {NAME: DEFINITION}, LEASE))

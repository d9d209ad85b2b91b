"""A process that fires schedules until it is killed.

python schedule_worker.py URL NAME
"""

from __future__ import annotations

import asyncio
import sys

from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.schedules.firing import Schedules
from engine_pg.schedules.known import KNOWN


async def main(url: str, name: str) -> None:
    bells = Doorbells(url)
    async with Database(url, name=f"engine_pg {name}", pool_max=2) as db:
        schedules = Schedules(db, bells, KNOWN, node=name)
        async with asyncio.TaskGroup() as group:
            group.create_task(bells.run())
            group.create_task(schedules.run())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""A price list in memory: any number of these processes, each with an exact copy of a table.

python prices.py postgresql://shop@host/db NAME
"""

import asyncio
import signal
import sys
from contextlib import aclosing

from engine_pg.cluster import Cluster
from engine_pg.cluster.feed import Change, Feed, Resync

ROWS = "select article, cents from public.price"


def say(*words: object) -> None:
    print(*words, flush=True)


class Prices:
    """The copy: what an article costs, without asking the database."""

    def __init__(self) -> None:
        self.cents: dict[str, int] = {}

    async def keep(self, feed: Feed) -> None:
        """Copy, then follow; again when that can't go on."""
        while True:
            async with feed.copy() as (tx, cursor):
                rows = await tx.all(ROWS)
            self.cents = {row["article"]: row["cents"] for row in rows}
            say("copied", len(rows), "prices")
            try:
                async with aclosing(feed.follow(cursor, topics=["price"])) as following:
                    async for found in following:
                        for change in found.changes:
                            self.take(change)
            except Resync as why:
                say("copying anew:", why)

    def take(self, change: Change) -> None:
        """Apply one change; `row` is the row as it was written, None when it was deleted."""
        if change.row is None:
            self.cents.pop(change.key, None)
        else:
            self.cents[change.key] = change.row["cents"]
        say(change.key, "costs", self.cents.get(change.key))


async def main(url: str, name: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Cluster(url, node=name) as cluster, asyncio.TaskGroup() as group:
        cluster.lead("feed", cluster.feed.retention().run)  # one of the processes trims it
        keeping = group.create_task(Prices().keep(cluster.feed))
        await stop.wait()
        keeping.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

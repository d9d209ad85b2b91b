"""An invoicing service: any number of these processes, one PostgreSQL, each invoice paid once.

    python invoicing.py postgresql://invoicing@host/db NAME

All processes are alike. One at a time closes the month, under a lock; one at a time reports, as a
leader. Kill the one that does: another one goes on where it stopped.
"""

import asyncio
import signal
import sys

from engine_pg.cluster import Cluster, EngineError, Leadership, Lease, LockKey, NotHeld

NEXT_OPEN = """
select invoice_id from invoice where paid_by is null order by invoice_id limit 1
"""
PAY = """
update invoice set paid_by = %(node)s, token = %(token)s, payments = payments + 1
 where invoice_id = %(id)s
"""
REPORT = "insert into report (node, term) values (%(node)s, %(term)s)"


def say(*words: object) -> None:
    print(*words, flush=True)


async def send_payment(invoice_id: int, token: int) -> None:
    """Call the bank. After a crash the next process repeats the call: the bank knows the invoice.

    It can also be late, of a process that was frozen: the bank knows that by its lower token.
    """
    await asyncio.sleep(0.1)
    say("paid", invoice_id, "under", token)


async def close_month(cluster: Cluster) -> None:
    """Pay every open invoice, one process at a time."""
    async with cluster.lock(LockKey("month", "2026-11"), wait_s=None, reason="close it") as hold:
        token = hold.grants[0].token
        say("closing under", token)
        while True:
            async with cluster.fenced(hold) as tx:
                row = await tx.first(NEXT_OPEN)
            if row is None:
                return
            await send_payment(row["invoice_id"], token)
            values = {"node": cluster.node, "token": token, "id": row["invoice_id"]}
            async with cluster.fenced(hold) as tx:  # commits only while the month is ours
                await tx.run(PAY, values)


async def close_month_until_done(cluster: Cluster) -> None:
    while True:
        try:
            await close_month(cluster)
        except NotHeld as error:  # this process was too slow: somebody else goes on with it
            say("lost the month:", error)
        except EngineError as error:  # no database for longer than it is worth waiting
            say("trying again:", error)
        else:
            say("the month is closed")
            return


async def serve(url: str, node: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Cluster(url, node=node, lease=Lease(2.0, 0.2, 0.2)) as cluster:

        @cluster.singleton("report")
        async def report(leadership: Leadership) -> None:
            while True:
                await leadership.until_trusted()
                async with cluster.fenced(leadership) as tx:
                    await tx.run(REPORT, {"node": node, "term": leadership.term})
                say("reported in term", leadership.term)
                await asyncio.sleep(0.2)

        say("joined")
        async with asyncio.TaskGroup() as group:
            closing = group.create_task(close_month_until_done(cluster))
            await stop.wait()
            closing.cancel()
    say("left")


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))

"""The first view of a replica: all tables in one snapshot of the database, a slice at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from engine_pg.db.tx import Tx
from engine_pg.replica.table import Table
from engine_pg.replica.view import View, ViewDraft

NOW: Final = "select clock_timestamp() as at"
CLOSE: Final = "close replica_copy"
FETCH: Final = "fetch 200 from replica_copy"
_OPEN: Final = "declare replica_copy no scroll cursor for "


async def copied(tx: Tx, tables: Sequence[Table[Any]], epoch_id: int) -> View:
    """Return the tables as the transaction sees them; its isolation is REPEATABLE READ.

    The loop is let go between slices, which are as long as one may hold it.
    """
    draft = ViewDraft(tables)
    for table in tables:
        target = draft.of(table)
        await tx.run(_OPEN + table.copy)
        while records := await tx.all(FETCH):
            for record in records:
                row = record["row"]
                target.put(table.key(row), table.row(row))
            await asyncio.sleep(0)
        await tx.run(CLOSE)
    return draft.freeze(await moment(tx), epoch_id)


async def moment(tx: Tx) -> datetime:
    """Return what time it is at the database."""
    record = await tx.first(NOW)
    assert record is not None
    return record["at"]

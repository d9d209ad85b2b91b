"""Failed logins of one name are few per minute, on whatever nodes they come in.

Counted under a hash of the name, known or not: the answer tells nothing about who exists, and the
table has at most 65536 rows however many names are tried.

Does not promise: that somebody who guesses at a name cannot keep its owner from logging in
meanwhile. Tokens that the owner has go on working.
"""

from __future__ import annotations

from typing import Final

from engine_pg.db.tx import Tx
from engine_pg.ids import hash32

WAIT: Final = """
select extract(epoch from since + interval '1 min' - clock_timestamp())::double precision as wait_s
  from auth_failure where bucket = %(bucket)s and failures >= %(limit)s
"""
FAILED: Final = """
insert into auth_failure as f (bucket, failures) values (%(bucket)s, 1)
on conflict (bucket) do update set
  failures = case when f.since < clock_timestamp() - interval '1 min' then 1
                  else least(f.failures + 1, 1000000) end,
  since = case when f.since < clock_timestamp() - interval '1 min' then clock_timestamp()
               else f.since end
"""


def _bucket(name: str) -> int:
    return hash32(name.strip().lower()) & 0xFFFF


async def wait_s(tx: Tx, name: str, limit: int) -> float:
    """Return for how many more seconds a name may not try."""
    record = await tx.first(WAIT, {"bucket": _bucket(name), "limit": limit})
    return max(0.0, record["wait_s"]) if record else 0.0


async def failed(tx: Tx, name: str) -> None:
    """Count a failure."""
    await tx.run(FAILED, {"bucket": _bucket(name)})

"""Request keys: the same request, sent again, is the same command, on whatever node it arrives.

A key is claimed, with the id of its command, before anything else is done about the request. What
becomes of the node that claimed it does not matter: the next one finds the id, and the command
either is there or is submitted under it.

A key that the sender made for this request alone (`Idempotency-Key`) stands for it until it is
trimmed. A correlation id may be on many requests, some of them alike on purpose (start, stop, start
again): there, a request is a repetition for a few minutes only, and only as long as its command is
the last one about its subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from engine_pg.db.database import Database
from engine_pg.db.tx import Record, Tx
from engine_pg.errors import KeyReused
from engine_pg.ids import new_id

CLAIM: Final[LiteralString] = """
insert into request_key (user_id, key, digest, command_id)
values (%(user_id)s, %(key)s, %(digest)s, %(command_id)s)
on conflict (user_id, key) do nothing
"""
FIND: Final[LiteralString] = """
select digest, command_id, answer from request_key
 where user_id = %(user_id)s and key = %(key)s for update
"""
# Both bounds keep the look at later commands short: it goes through those of these minutes alone.
SUPERSEDE: Final[LiteralString] = """
update request_key k
   set command_id = %(command_id)s, answer = null, claimed_at = clock_timestamp()
 where k.user_id = %(user_id)s and k.key = %(key)s
   and (k.claimed_at < clock_timestamp() - interval '5 min'
        or exists (select from command c join command later
                     on later.subject_id = c.subject_id and later.submitted_at > c.submitted_at
                    where c.command_id = k.command_id))
"""
KEEP: Final[LiteralString] = """
update request_key set answer = %(answer)s
 where user_id = %(user_id)s and key = %(key)s and command_id = %(command_id)s and answer is null
"""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Who asks, the name that he gave to the request, and what it stands for.

    `lasting`: he gave it to this request alone.
    """

    user_id: UUID
    key: str
    digest: str
    lasting: bool = True

    @property
    def row(self) -> Record:
        """Return the columns that name it."""
        return {"user_id": self.user_id, "key": self.key, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class Claimed:
    """The command of a request: its id, and the answer that was given, if one was."""

    key: RequestKey
    command_id: UUID
    repeated: bool = False
    answer: Record | None = None


async def claim(db: Database, key: RequestKey) -> Claimed:
    """Return the command of a request, the same one for each repetition.

    Raises `KeyReused` when the key stands for another request.
    """
    proposed = new_id()
    while True:
        async with db.write() as tx:
            if await tx.run(CLAIM, key.row | {"command_id": proposed}):
                return Claimed(key, proposed)
            found = await _found(tx, key, proposed)
        if found is not None:  # else it was trimmed at this instant
            return found


async def _found(tx: Tx, key: RequestKey, proposed: UUID) -> Claimed | None:
    if not key.lasting and await tx.run(SUPERSEDE, key.row | {"command_id": proposed}):
        return Claimed(key, proposed)
    row = await tx.first(FIND, key.row)
    if row is None:
        return None
    if row["digest"] != key.digest:
        raise KeyReused("the Idempotency-Key stands for another request")
    return Claimed(key, row["command_id"], repeated=True, answer=row["answer"])


async def keep(db: Database, claimed: Claimed, answer: Record) -> None:
    """Keep what a request was answered, for its repetitions."""
    params = claimed.key.row | {"command_id": claimed.command_id, "answer": Jsonb(answer)}
    await db.statement(KEEP, params)

"""One batch of a lock session: operations of many tasks as the parameters of one statement.

Arrays are written as PostgreSQL reads them, not through adapters: a batch has some thousand values,
and this is the hot path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg.types.json import Jsonb

from engine_pg.cluster.ops import Asking, Op, Part, Releasing
from engine_pg.db.tx import Record

BATCH: Final = """
select cluster_batch(
  %(member)s, %(session)s, %(sync)s, %(observe)s,
  %(release_kinds)s::text[], %(release_ids)s::text[], %(release_tokens)s::bigint[],
  %(tickets)s::bigint[], %(tries)s::boolean[], %(waits)s::boolean[], %(commands)s::uuid[],
  %(users)s::text[], %(reasons)s::text[],
  %(requests)s::integer[], %(kinds)s::text[], %(ids)s::text[], %(modes)s::text[],
  %(advisories)s::bigint[], %(ops)s, %(seen)s) as reply
"""


class Batch:
    """Operations in the order of their submission; the database does releases first."""

    def __init__(self, parts: Sequence[Part], *, salt: int = 0) -> None:
        self.parts = parts
        self._salt = salt
        self._releases = [part for part in parts if isinstance(part, Releasing)]
        self._ops = [part for part in parts if isinstance(part, Op)]
        self._asking = [part for part in parts if isinstance(part, Asking)]

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def sync(self) -> bool:
        """Whether the batch must be durable before it is believed; releases alone need not be."""
        return bool(self._asking) or any(op.sync for op in self._ops)

    @property
    def tells(self) -> bool:
        """Whether it may have changed leaders or commands, which others follow."""
        return bool(self._ops)

    def params(self) -> Record:
        """Return the parameters of `BATCH` that the operations make up."""
        released = [grant for part in self._releases for grant in part.grants]
        asking = self._asking
        wanted = [each for entry in asking for each in entry.wanted]
        numbers = [number for number, e in enumerate(asking, start=1) for _ in e.wanted]
        return {
            "release_kinds": _texts([grant.key.kind for grant in released]),
            "release_ids": _texts([grant.key.id for grant in released]),
            "release_tokens": _plain([grant.token for grant in released]),
            "tickets": _plain([entry.ticket for entry in asking]),
            "tries": _plain([entry.tries for entry in asking]),
            "waits": _plain([entry.waits for entry in asking]),
            "commands": _plain([entry.reason.command_id for entry in asking]),
            "users": _texts([entry.reason.user_name for entry in asking]),
            "reasons": _texts([entry.reason.text for entry in asking]),
            "requests": _plain(numbers),
            "kinds": _texts([each.key.kind for each in wanted]),
            "ids": _texts([each.key.id for each in wanted]),
            "modes": _plain([each.mode for each in wanted]),
            "advisories": _plain([each.key.advisory ^ self._salt for each in wanted]),
            "ops": Jsonb([op.body for op in self._ops]),
        }

    def answers(self, reply: Record) -> Answers:
        """Return the results; those of anything but requests for locks are told already."""
        for op, result in zip(self._ops, reply["results"], strict=True):
            op.settle(result)
        return Answers(self._asking, reply["acquired"])


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch that is under way; a renewal (`sync`) counts from when it was sent."""

    batch: Batch
    at: float
    sync: bool
    reply: asyncio.Task[Record] | None  # None: a heartbeat, which goes by itself


class Answers:
    """What the requests of one batch were answered: told all at once, or to some of them first.

    Nobody who is told resumes before the caller yields to the event loop.
    """

    __slots__ = ("_asking", "_refused", "_start", "_tokens", "_told")

    def __init__(self, asking: Sequence[Asking] = (), acquired: Record | None = None) -> None:
        self._asking = asking
        self._told = self._start = 0
        self._tokens: Sequence[int] = acquired["tokens"] if acquired else ()
        refused = acquired["refused"] if acquired else ()
        self._refused: dict[int, Record] = {each["request"]: each for each in refused}

    def __len__(self) -> int:
        return len(self._asking) - self._told

    def tell(self, most: int | None = None) -> None:
        """Tell the next ones, so many at most, what they were answered."""
        until = len(self._asking) if most is None else self._told + most
        while self._told < until:
            asking = self._asking[self._told]
            self._told += 1
            start, self._start = self._start, self._start + len(asking.wanted)
            answer = self._refused.get(self._told)
            if answer is None:
                asking.granted(self._tokens[start : self._start])
            else:
                asking.refused(answer)


def _texts(values: Sequence[str]) -> str:
    if not values:
        return "{}"
    written = '","'.join(values)
    if "\\" in written or written.count('"') > 2 * (len(values) - 1):  # hardly ever
        quoted = [value.replace("\\", "\\\\").replace('"', '\\"') for value in values]
        written = '","'.join(quoted)
    return '{"' + written + '"}'


def _plain(values: Iterable[object]) -> str:
    """Write values whose text needs no quotes: numbers, truths, modes, UUIDs; None is null."""
    return "{" + ",".join(["null" if value is None else str(value) for value in values]) + "}"

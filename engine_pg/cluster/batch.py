"""One batch of a lock session: operations of many tasks as the parameters of one statement.

Arrays are written as PostgreSQL reads them, not through adapters: a batch has some thousand values,
and this is the hot path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        keys = [
            (number, wanted)
            for number, entry in enumerate(asking, start=1)
            for wanted in entry.wanted
        ]
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
            "requests": _plain([number for number, _ in keys]),
            "kinds": _texts([wanted.key.kind for _, wanted in keys]),
            "ids": _texts([wanted.key.id for _, wanted in keys]),
            "modes": _plain([wanted.mode for _, wanted in keys]),
            "advisories": _plain([wanted.key.advisory ^ self._salt for _, wanted in keys]),
            "ops": Jsonb([op.body for op in self._ops]),
        }

    def deal_out(self, reply: Record) -> None:
        """Give each operation its result, in the order in which they were submitted."""
        for op, result in zip(self._ops, reply["results"], strict=True):
            op.settle(result)
        if not self._asking:
            return
        acquired: Record = reply["acquired"]
        tokens: list[int | None] = acquired["tokens"]
        answers = {each["request"]: each for each in acquired["refused"]}
        start = 0
        for number, asking in enumerate(self._asking, start=1):
            end = start + len(asking.wanted)
            if number in answers:
                asking.refused(answers[number])
            else:
                asking.granted([token for token in tokens[start:end] if token is not None])
            start = end


def _texts(values: Iterable[str]) -> str:
    quoted = [
        value.replace("\\", "\\\\").replace('"', '\\"') if '"' in value or "\\" in value else value
        for value in values
    ]
    return '{"' + '","'.join(quoted) + '"}' if quoted else "{}"


def _plain(values: Iterable[object]) -> str:
    """Write values whose text needs no quotes: numbers, truths, modes, UUIDs; None is null."""
    return "{" + ",".join(["null" if value is None else str(value) for value in values]) + "}"

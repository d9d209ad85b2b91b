"""What people and their tools are shown of commands: lists, and one with its steps and children.

The command line prints these documents and REST answers with them: their keys are documented in
`docs/reference/rest.md` and stay.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString, get_args
from uuid import UUID

from engine_pg.commands.rows import State
from engine_pg.commands.shown import Document, plain
from engine_pg.db.tx import Record, Tx
from engine_pg.errors import Invalid, NotFound

STATES: Final[tuple[str, ...]] = get_args(State)
MOST: Final = 1000

# The last step that was begun tells where a command is.
COMMANDS: Final[LiteralString] = """
select c.command_id, c.name, c.description, c.state, c.subject_kind, c.subject_id, c.user_name,
       c.correlation_id, m.node, c.member_id, c.attempt, c.deaths, c.error_kind, c.error,
       c.submitted_at, c.started_at, c.accepted_at, c.ended_at, c.deadline_at, c.not_before,
       c.cancel_asked_at, c.cancel_asked_by, c.parent_id, c.retry_of,
       extract(epoch from coalesce(c.ended_at, clock_timestamp()) - c.submitted_at)::float8
         as age_s,
       s.title as step, s.progress, s.message
  from command c
  left join member m using (member_id)
  left join lateral (select title, progress, message from command_step s
                      where s.command_id = c.command_id order by number desc limit 1) s on true
 where (%(id)s::uuid is null or c.command_id = %(id)s)
   and (%(state)s::text is null or c.state = %(state)s)
   and (not %(open)s or c.ended_at is null)
   and (%(node)s::text is null or m.node = %(node)s)
   and (%(subject_id)s::uuid is null or c.subject_id = %(subject_id)s)
   and (%(user_name)s::text is null or c.user_name = %(user_name)s)
   and (%(parent_id)s::uuid is null or c.parent_id = %(parent_id)s)
 order by c.submitted_at desc, c.command_id limit %(most)s
"""
STEPS: Final[LiteralString] = """
select number, name, title, kind, state, attempt, progress, message, intent, outcome, error,
       started_at, ended_at from command_step where command_id = %(id)s order by number
"""
_ANY: Final[Record] = {
    "id": None, "state": None, "open": False, "node": None, "subject_id": None,
    "user_name": None, "parent_id": None, "most": MOST,
}  # fmt: skip


def _document(record: Record) -> Document:
    return {name: plain(value) for name, value in record.items()}


async def commands(
    tx: Tx,
    *,
    state: str | None = None,
    open_: bool = False,
    node: str | None = None,
    subject_id: UUID | None = None,
    user_name: str | None = None,
    parent_id: UUID | None = None,
    most: int = MOST,
) -> Document:
    """Return `commands`, the newest first."""
    if state is not None and state not in STATES:
        raise Invalid(f"there is no state {state[:40]}; there are: {', '.join(STATES)}")
    wanted: dict[str, Any] = {
        "state": state,
        "open": open_,
        "node": node,
        "subject_id": subject_id,
        "user_name": user_name,
        "parent_id": parent_id,
        "most": most,
    }
    return {"commands": [_document(each) for each in await tx.all(COMMANDS, _ANY | wanted)]}


async def command(tx: Tx, command_id: UUID) -> Document:
    """Return one command with its `steps` and `children`; raises `NotFound`."""
    found = await tx.first(COMMANDS, _ANY | {"id": command_id})
    if found is None:
        raise NotFound(f"there is no command {command_id}")
    steps = await tx.all(STEPS, {"id": command_id})
    children = await tx.all(COMMANDS, _ANY | {"parent_id": command_id})
    return _document(found) | {
        "steps": [_document(each) for each in steps],
        "children": [_document(each) for each in reversed(children)],
    }

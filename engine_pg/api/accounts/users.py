"""The table of users: whoever is in it and enabled may do everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from engine_pg.api.accounts import tokens
from engine_pg.db.tx import Record, Tx
from engine_pg.errors import Conflict, Invalid, NotFound
from engine_pg.ids import new_id

_NAME_LIMIT: Final = 255

FIND: Final = """
select user_id, name, password_hash, enabled, created_at from app_user
 where lower(name) = lower(%(name)s)
"""
LIST: Final = """
select user_id, name, password_hash, enabled, created_at from app_user order by lower(name)
"""
ADD: Final = """
insert into app_user (user_id, name, password_hash)
values (%(user_id)s, %(name)s, %(password_hash)s) on conflict (lower(name)) do nothing
"""
SET_PASSWORD: Final = """
update app_user set password_hash = %(password_hash)s, changed_at = now()
 where lower(name) = lower(%(name)s) returning user_id
"""
LOCK_ALL: Final = "lock table app_user in share row exclusive mode"
OTHERS: Final = """
select count(*) as others from app_user where enabled and lower(name) <> lower(%(name)s)
"""
REMOVE: Final = "delete from app_user where lower(name) = lower(%(name)s)"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody we know."""

    user_id: UUID
    name: str
    password_hash: str
    enabled: bool
    created_at: datetime


def _user(record: Record) -> User:
    return User(**record)


def checked_name(name: str) -> str:
    """Return a user name as it is stored (user@domain), or raise Invalid."""
    name = name.strip()
    if not name or len(name) > _NAME_LIMIT or not name.isprintable() or ":" in name:
        raise Invalid(f"{name!r} is not a user name")
    return name


async def find(tx: Tx, name: str) -> User | None:
    """Return the user of that name, in whatever case it is written."""
    record = await tx.first(FIND, {"name": name})
    return _user(record) if record else None


async def listed(tx: Tx) -> Sequence[User]:
    """Return all users by name."""
    return [_user(record) for record in await tx.all(LIST)]


async def add(tx: Tx, name: str, password_hash: str) -> bool:
    """Add a user; return False if there is one of that name."""
    values = {"user_id": new_id(), "name": name, "password_hash": password_hash}
    return await tx.run(ADD, values) == 1


async def set_password(tx: Tx, name: str, password_hash: str) -> None:
    """Give a user another password; his tokens end with the old one."""
    record = await tx.first(SET_PASSWORD, {"name": name, "password_hash": password_hash})
    if record is None:
        raise NotFound(f"there is no user {name}")
    await tokens.revoke_all(tx, record["user_id"])


async def remove(tx: Tx, name: str) -> None:
    """Remove a user with his tokens; the last one stays, or nobody could ever come in again."""
    await tx.run(LOCK_ALL)  # of two removals at once, each would see the other's user
    others = await tx.first(OTHERS, {"name": name})
    if await find(tx, name) is None:
        raise NotFound(f"there is no user {name}")
    if others is None or others["others"] == 0:
        raise Conflict(f"{name} is the last user that can log in")
    await tx.run(REMOVE, {"name": name})

"""Bearer tokens: 256 random bits, of which only the SHA-256 is stored; good on every node.

A token expires when it was not used for its lifetime; its use is noted once a minute.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from engine_pg.db.tx import Tx

ISSUE: Final = """
insert into api_token (token_hash, user_id, expires_at)
values (%(token_hash)s, %(user_id)s, now() + %(lifetime_s)s * interval '1 s') returning expires_at
"""
SWEEP: Final = """
delete from api_token where token_hash in (
  select token_hash from api_token where expires_at < now() limit 100 for update skip locked)
"""
USED: Final = """
update api_token set last_used_at = now(), expires_at = now() + %(lifetime_s)s * interval '1 s'
 where token_hash = %(token_hash)s and last_used_at < now() - interval '1 min'
"""
REVOKE: Final = "delete from api_token where token_hash = %(token_hash)s"

REVOKE_ALL: Final = "delete from api_token where user_id = %(user_id)s"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sent a request."""

    user_id: UUID
    name: str


def hashed(token: str) -> bytes:
    """Return what stands for a token in the database."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


async def issue(tx: Tx, user_id: UUID, lifetime_s: float) -> tuple[str, datetime]:
    """Issue a token; return it and when it expires. Some expired ones are swept out."""
    token = secrets.token_urlsafe(32)
    values = {"token_hash": hashed(token), "user_id": user_id, "lifetime_s": lifetime_s}
    record = await tx.first(ISSUE, values)
    assert record is not None
    await tx.run(SWEEP)
    return token, record["expires_at"]


async def used(tx: Tx, token: str, lifetime_s: float) -> None:
    """Note that a token was used: it lives on."""
    await tx.run(USED, {"token_hash": hashed(token), "lifetime_s": lifetime_s})


async def revoke(tx: Tx, token: str) -> None:
    """End a token, if it is one."""
    await tx.run(REVOKE, {"token_hash": hashed(token)})


async def revoke_all(tx: Tx, user_id: UUID) -> None:
    """End all tokens of a user."""
    await tx.run(REVOKE_ALL, {"user_id": user_id})

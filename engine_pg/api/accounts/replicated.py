"""Users and tokens in the replica: who asks is known without asking the database.

Passwords are not there. A token is found by its hash, which tells nobody the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

from engine_pg.api.accounts.tokens import Identity, hashed
from engine_pg.replica.table import Table
from engine_pg.replica.view import View

USERS: Final[LiteralString] = "select to_jsonb(t) - 'password_hash' as row from app_user t"
TOKENS: Final[LiteralString] = "select to_jsonb(t) as row from api_token t"
_NOTED: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user, without his password."""

    user_id: UUID
    name: str
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token that was issued."""

    token_hash: str
    user_id: UUID
    expires_at: datetime
    last_used_at: datetime


ACCOUNTS: Final[tuple[Table[Any], ...]] = (
    Table(
        kind=Account,
        topic="_user",
        copy=USERS,
        key=lambda record: record["user_id"],
        place=lambda row: (row.name.lower(),),
        indexes={"name": lambda row: row.name.lower()},
    ),
    Table(
        kind=Token,
        topic="_token",
        copy=TOKENS,
        key=lambda record: record["token_hash"],
        place=lambda row: (),  # noqa: ARG005  # nobody lists them
        indexes={"user_id": lambda row: row.user_id},
    ),
)


def logged_in(view: View, now: datetime) -> int:
    """Return how many users have a token that is good."""
    tokens = view.of(Token)
    return sum(
        any(token.expires_at > now for token in tokens.by("user_id", account.user_id))
        for account in view.of(Account)
    )


def bearer(view: View, token: str, now: datetime) -> tuple[Identity, bool] | None:
    """Return whose token it is, and whether its use was last noted over a minute ago."""
    found = view.of(Token).get(rf"\x{hashed(token).hex()}")
    if found is None or found.expires_at <= now:
        return None
    account = view.of(Account).get(found.user_id)
    if account is None or not account.enabled:
        return None
    return Identity(account.user_id, account.name), found.last_used_at < now - _NOTED

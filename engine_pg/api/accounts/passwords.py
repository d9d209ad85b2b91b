"""Argon2 off the event loop, a few at a time: each costs 64 MiB and a good part of a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from engine_pg.errors import Invalid, Unavailable

_LENGTH_LIMIT: Final = 1024


class Passwords:
    """Hashes and verifies passwords in threads, at most `slots` at once with `waiting` behind."""

    def __init__(
        self, hasher: PasswordHasher | None = None, *, slots: int = 2, waiting: int = 64
    ) -> None:
        self._hasher = hasher or PasswordHasher()
        self._nobody = self._hasher.hash("")  # verified for unknown users: the same work
        self._slots = asyncio.Semaphore(slots)
        self._room = slots + waiting

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None]:
        """Wait for the turn to verify; raise Unavailable when too many wait already."""
        if self._room <= 0:
            raise Unavailable("too many logins at the same moment")
        self._room -= 1
        try:
            async with self._slots:
                yield
        finally:
            self._room += 1

    async def hash(self, password: str) -> str:
        """Return the hash that stands for a password in the database."""
        if not 0 < len(password) <= _LENGTH_LIMIT:
            raise Invalid(f"a password has 1 to {_LENGTH_LIMIT} characters")
        return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Return whether a password is right; None, an unknown user's hash, takes as long."""
        known = password_hash is not None
        right = await asyncio.to_thread(self._verify, password_hash or self._nobody, password)
        return right and known

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password[:_LENGTH_LIMIT])
        except (VerificationError, InvalidHashError, UnicodeError):
            return False

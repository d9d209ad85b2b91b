"""Logging in with a name and a password."""

from __future__ import annotations

import math
from typing import Final

from engine_pg.api.accounts import throttle, users
from engine_pg.api.accounts.tokens import Identity
from engine_pg.api.services import Services
from engine_pg.api.wire.document import ILLEGAL
from engine_pg.errors import Unauthorized

_WRONG: Final = (
    "Cannot authenticate user Unable to log in. Verify your login information or contact the "
    "system administrator."
)
_NAME_LIMIT: Final = 255


async def login(services: Services, name: str, password: str) -> Identity:
    """Return who it is; Unauthorized says the same whatever was wrong."""
    if len(name) > _NAME_LIMIT or ILLEGAL.search(name):
        raise Unauthorized(_WRONG)
    limit = services.settings.now.auth_failures_per_minute
    async with services.passwords.slot():  # looked up inside: few guesses run ahead of the count
        async with services.db.read() as tx:
            wait_s = await throttle.wait_s(tx, name, limit)
            user = await users.find(tx, name)
        if wait_s > 0:
            raise Unauthorized(f"Too many failed logins. Try again in {math.ceil(wait_s)} s.")
        right = await services.passwords.matches(user.password_hash if user else None, password)
        if right and user is not None and user.enabled:
            return Identity(user.user_id, user.name)
        async with services.db.write() as tx:
            await throttle.failed(tx, name)
    raise Unauthorized(_WRONG)

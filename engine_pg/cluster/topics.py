"""The doorbells that members ring: a topic says where to look, never what to see."""

from __future__ import annotations

from typing import Final

CHANGES: Final = "changes"
"""For all who follow the change feed."""
MEMBERS: Final = "members"
LOCKS: Final = "locks"
"""For all who wait for locks; `waiters_of` a member for those of one."""


def waiters_of(member_id: str) -> str:
    """Return the topic of those who wait for locks in a member."""
    return f"{LOCKS}/{member_id}"

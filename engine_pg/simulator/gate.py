"""The gate of a host: it refuses a call whose fencing token is older than one it has seen.

Per key it keeps the highest exclusive token and the highest of any. A call under a shared grant is
refused below the former, one under an exclusive grant below the latter: a shared grant that follows
another shared one takes nothing from it. Every accepted call raises the gate, reads too, so that a
successor closes it behind its predecessor by its first question.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from engine_pg.errors import Invalid

MAX_GRANTS: Final = 64
MAX_KEY: Final = 200


@dataclass(frozen=True, slots=True)
class Grant:
    """One right that a call is made under."""

    key: str
    mode: Literal["exclusive", "shared"]
    token: int

    def as_json(self) -> dict[str, str | int]:
        """Return the form on the wire and in the journal."""
        return {"key": self.key, "mode": self.mode, "token": self.token}


@dataclass(frozen=True, slots=True)
class Stale:
    """Why a call is stale: the grant, and the higher token that the gate knows."""

    grant: Grant
    highest: int

    @property
    def reason(self) -> str:
        """Return the sentence for the caller."""
        grant = self.grant
        return f"{grant.mode} token {grant.token} of {grant.key} is stale: {self.highest} was seen"


class Gate:
    """The highest tokens that one host has accepted."""

    def __init__(self) -> None:
        self._exclusive: dict[str, int] = {}
        self._any: dict[str, int] = {}

    @property
    def highest(self) -> int:
        """The highest token of any key; 0: none was seen."""
        return max(self._any.values(), default=0)

    def stale(self, grants: Iterable[Grant]) -> Stale | None:
        """Return the first grant that is stale, with the token that overtook it."""
        for grant in grants:
            highest = self._any if grant.mode == "exclusive" else self._exclusive
            if grant.token < highest.get(grant.key, grant.token):
                return Stale(grant, highest[grant.key])
        return None

    def accept(self, grants: Iterable[Grant]) -> None:
        """Remember the tokens of an accepted call."""
        for grant in grants:
            self._raise(self._any, grant)
            if grant.mode == "exclusive":
                self._raise(self._exclusive, grant)

    def _raise(self, highest: dict[str, int], grant: Grant) -> None:
        highest[grant.key] = max(grant.token, highest.get(grant.key, grant.token))


def parse_grants(raw: object) -> tuple[Grant, ...]:
    """Read the grants of a call from the wire; `Invalid` says what is wrong with them."""
    if not isinstance(raw, list):
        raise Invalid("the grants are no list")
    items = cast("list[object]", raw)
    if len(items) > MAX_GRANTS:
        raise Invalid(f"more than {MAX_GRANTS} grants")
    return tuple(_parse_grant(item) for item in items)


def _parse_grant(raw: object) -> Grant:
    if not isinstance(raw, dict):
        raise Invalid("a grant is no object")
    fields = cast("dict[str, Any]", raw)
    key, mode, token = fields.get("key"), fields.get("mode"), fields.get("token")
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY:
        raise Invalid("a grant has no key")
    if mode not in ("exclusive", "shared"):
        raise Invalid(f"the grant of {key} has no mode")
    if type(token) is not int or not 0 <= token < 1 << 63:
        raise Invalid(f"the grant of {key} has no token")
    return Grant(key, mode, token)

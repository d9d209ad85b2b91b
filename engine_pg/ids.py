"""Identities: random, never host names, chosen by the caller before anything is written."""

from __future__ import annotations

import hashlib
from uuid import UUID, uuid4, uuid5

BLANK_TEMPLATE_ID = UUID(int=0)
_NAMESPACE = UUID("6f1d2f5e-7a39-4c59-9d0b-0e6d1f0a9b11")


def new_id() -> UUID:
    """Return a fresh random identity."""
    return uuid4()


def derived_id(*parts: object) -> UUID:
    """Return the identity that the same parts always give: a repeated request is the same one."""
    return uuid5(_NAMESPACE, "\x1f".join(str(part) for part in parts))


def hash64(text: str) -> int:
    """Return a signed 64-bit hash, stable across machines and versions (an advisory lock's key)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


def hash32(text: str) -> int:
    """Return a signed 32-bit hash (half of a two-integer advisory key)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), signed=True)

"""What PostgreSQL keeps of a password: computed here, so that no server and no log ever sees it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

from engine_pg.errors import Invalid

_ITERATIONS: Final = 4096
_SALT_BYTES: Final = 16


def verifier(password: str, *, salt: bytes | None = None) -> str:
    """Return the SCRAM-SHA-256 verifier of a password, of ASCII characters that can be seen."""
    if not password or not all(" " < character <= "~" for character in password):
        raise Invalid("a role's password is of visible ASCII characters, and not empty")
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    words = (base64.b64encode(each).decode() for each in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(_ITERATIONS, *words)

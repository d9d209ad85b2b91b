"""Database URLs in the forms that libpq and SQLAlchemy want, and in one that may be shown."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit


def sqlalchemy_url(url: str) -> str:
    """Return the URL with the driver that SQLAlchemy is to use."""
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg://", url, count=1)


def libpq_url(url: str) -> str:
    """Return the URL without a driver's name."""
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url, count=1)


def shown_url(url: str) -> str:
    """Return the URL without its password, for people."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = (parts.username or "") + "@" if parts.username else ""
    return urlunsplit(parts._replace(netloc=user + host, query=""))

"""Database URLs in the forms that libpq and SQLAlchemy want, and in one that may be shown."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from engine_pg.errors import Invalid

_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


_FOLLOWING: Final = {"target_session_attrs": "read-write", "connect_timeout": "3"}


def sqlalchemy_url(url: str) -> str:
    """Return the URL with the driver that SQLAlchemy is to use.

    SQLAlchemy wants several hosts as options; of those the writable one is then looked for.
    """
    known = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg://", url, count=1)
    parts = urlsplit(known)
    account, at, places = parts.netloc.rpartition("@")
    if "," not in places:
        return known
    options = _FOLLOWING | dict(parse_qsl(parts.query, keep_blank_values=True))
    words = [*options.items(), *(("host", place) for place in places.split(","))]
    query = urlencode(words, quote_via=quote, safe="/:")
    return urlunsplit(parts._replace(netloc=account + at, query=query))


def libpq_url(url: str) -> str:
    """Return the URL without a driver's name."""
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url, count=1)


def schema_url(url: str, schema: str) -> str:
    """Return the URL whose sessions see the schema and nothing else; refuse a name to be quoted."""
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise Invalid(f"{schema!r} is no schema's name: lower-case letters, digits, underscores")
    if not url.startswith(("postgresql://", "postgres://", "postgresql+")):
        raise Invalid("a database is named by its URL: postgresql://user@host/name")
    parts = urlsplit(libpq_url(url))
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    given["options"] = f"{given.get('options', '')} -csearch_path={schema}".strip()
    return urlunsplit(parts._replace(query=urlencode(given, quote_via=quote)))


def shown_url(url: str) -> str:
    """Return the URL without its password, for people."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = (parts.username or "") + "@" if parts.username else ""
    return urlunsplit(parts._replace(netloc=user + host, query=""))

"""oVirt's JSON: numbers and booleans travel as text, moments as milliseconds since 1970."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final, cast

from engine_pg.api.wire.document import Document
from engine_pg.errors import Invalid

MEDIA_TYPE: Final = "application/json"
_MAX_DEPTH: Final = 32


def _plain(value: object) -> object:
    if isinstance(value, dict):
        document = cast("Document", value)
        return {key: _plain(inner) for key, inner in document.items() if inner is not None}
    if isinstance(value, list):
        return [_plain(each) for each in cast("list[object]", value)]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    return str(value) if isinstance(value, int) else value


def written(name: str, document: Document) -> bytes:  # noqa: ARG001  # the name is XML's; one signature for both
    """Return a document as JSON, which has no name for its outermost object."""
    return json.dumps(_plain(document), ensure_ascii=False).encode("utf-8", "replace")


def fragment(name: str, document: Document) -> bytes:
    """Return a document as an object, to stand in a collection."""
    return written(name, document)


def collection(many: str, one: str, fragments: list[bytes]) -> bytes:  # noqa: ARG001  # the outer name is XML's
    """Return a collection of such objects."""
    return f'{{"{one}": ['.encode() + b", ".join(fragments) + b"]}"


def _checked(value: object, depth: int = 0) -> Any:  # noqa: ANN401  # of anything
    if depth > _MAX_DEPTH:
        raise Invalid("The JSON document is too deep")
    if isinstance(value, dict):
        inner = cast("dict[str, object]", value)
        return {k: _checked(v, depth + 1) for k, v in inner.items() if v is not None}
    if isinstance(value, list):
        return [_checked(each, depth + 1) for each in cast("list[object]", value)]
    return value


def read(body: bytes) -> Document:
    """Return the document of a JSON text, or raise Invalid."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"The request is not acceptable JSON: {error}") from error
    if not isinstance(value, dict):
        raise Invalid("The request is not acceptable JSON: an object is expected")
    return cast("Document", _checked(cast("object", value)))

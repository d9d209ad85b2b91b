"""The neutral form of everything that goes over the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

Scalar = str | int | float | bool | datetime
Document = dict[str, Any]
ATTRIBUTES: Final = ("id", "href", "rel")
ILLEGAL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def legal(text: str) -> str:
    """Return the text without the characters that XML cannot carry in any form."""
    return ILLEGAL.sub("", text)


def reference(base: str, collection: str, id_: object, name: str | None = None) -> Document:
    """Return a reference to another entity."""
    document: Document = {"id": str(id_), "href": f"{base}/{collection}/{id_}"}
    if name is not None:
        document["name"] = name
    return document


def is_document(value: object) -> bool:
    """Return whether a value has elements of its own."""
    return isinstance(value, Mapping)


def repeated(value: object) -> Sequence[Any]:
    """Return the values of an element, which may stand once or many times."""
    return value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]  # of anything

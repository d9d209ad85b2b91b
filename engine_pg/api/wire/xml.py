"""XML in and out, as oVirt's clients write and read it.

Written by hand, since of a text `<x/>` means "nothing" to those clients and `<x></x>` "empty", and
since building strings is twice as fast as any tree. Read by expat with everything switched off that
could reach out or blow up: document types, entities, depth, number of elements.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, cast
from xml.sax.saxutils import escape

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, ParseError

from engine_pg.api.wire.document import ATTRIBUTES, Document, legal
from engine_pg.errors import Invalid

MEDIA_TYPE: Final = "application/xml"
_HEAD: Final = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAX_DEPTH: Final = 32
_MAX_ELEMENTS: Final = 20_000
_QUOTED: Final = {'"': "&quot;", "\n": "&#10;", "\t": "&#9;", "\r": "&#13;"}
_PLAIN: Final = {"\r": "&#13;"}
_UNSAFE: Final = re.compile(r"[^ !#-%'-;=?-~\u00a0-\ud7ff]")  # most texts need no escaping at all


def date_text(at: datetime) -> str:
    """Return a moment as oVirt writes it: UTC, milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: object) -> str:
    if isinstance(value, str):
        return escape(legal(value), _PLAIN) if _UNSAFE.search(value) else value
    if isinstance(value, bool):
        return "true" if value else "false"
    return date_text(value) if isinstance(value, datetime) else str(value)


def _attribute(value: object) -> str:
    text = str(value)
    return escape(legal(text), _QUOTED) if _UNSAFE.search(text) else text


def _element(out: list[str], name: str, value: object) -> None:
    if isinstance(value, list):
        for each in cast("list[object]", value):
            _element(out, name, each)
    elif isinstance(value, dict):
        _group(out, name, cast("Document", value))
    else:
        out.append(f"<{name}>{_text(value)}</{name}>")


def _group(out: list[str], name: str, document: Document) -> None:
    out.append(f"<{name}")
    for attribute in ATTRIBUTES:
        if (text := document.get(attribute)) is not None:
            out.append(f' {attribute}="{_attribute(text)}"')
    out.append(">")
    opened = len(out)
    for key, inner in document.items():
        if inner is not None and key not in ATTRIBUTES:
            _element(out, key, inner)
    if len(out) == opened:
        out[-1] = "/>"  # the SDK loses its place in some types (method) that are written in full
    else:
        out.append(f"</{name}>")


def fragment(name: str, document: Document) -> bytes:
    """Return a document as an element, to stand in a collection."""
    out: list[str] = []
    _element(out, name, document)
    return "".join(out).encode()


def collection(many: str, one: str, fragments: list[bytes]) -> bytes:  # noqa: ARG001  # the inner name is JSON's
    """Return a collection of such elements."""
    if not fragments:
        return f"{_HEAD}<{many}/>".encode()
    return b"".join([f"{_HEAD}<{many}>".encode(), *fragments, f"</{many}>".encode()])


def written(name: str, document: Document) -> bytes:
    """Return a document as XML."""
    out = [_HEAD]
    _element(out, name, document)
    return "".join(out).encode()


class _Reader:
    """The target of the parser: builds documents, refuses what is too deep or too much."""

    def __init__(self) -> None:
        self._open: list[Document] = []
        self._texts: list[list[str]] = []
        self._elements = 0
        self.root: tuple[str, Any] | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:  # noqa: ARG002  # expat's call
        """Open an element."""
        self._elements += 1
        if len(self._open) >= _MAX_DEPTH or self._elements > _MAX_ELEMENTS:
            raise Invalid("The XML document is too deep or has too many elements")
        self._open.append({key: attributes[key] for key in ATTRIBUTES if key in attributes})
        self._texts.append([])

    def data(self, text: str) -> None:
        """Take text of the innermost element."""
        self._texts[-1].append(text)

    def end(self, tag: str) -> None:
        """Close an element and hand it to the one around it."""
        document, text = self._open.pop(), "".join(self._texts.pop())
        value = document or text
        if not self._open:
            self.root = (tag, value)
            return
        outer = self._open[-1]
        if tag in ATTRIBUTES:
            return  # clients carry these as attributes; an element of that name means nothing
        if tag not in outer:
            outer[tag] = value
        elif isinstance(outer[tag], list):
            cast("list[object]", outer[tag]).append(value)
        else:
            outer[tag] = [outer[tag], value]

    def close(self) -> tuple[str, Any] | None:
        """Return the name and the value of the outermost element."""
        return self.root


def read(body: bytes) -> tuple[str, Document]:
    """Return the name and the document of an XML text, or raise Invalid."""
    make = cast("Callable[..., Any]", DefusedXMLParser)
    parser = make(target=_Reader(), forbid_dtd=True, forbid_entities=True, forbid_external=True)
    try:
        parser.feed(body)
        root = cast("tuple[str, Any] | None", parser.close())
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise Invalid(f"The request is not acceptable XML: {error}") from error
    if root is None:
        raise Invalid("The request is not acceptable XML: no element")
    name, value = root
    return name, cast("Document", value) if isinstance(value, dict) else {}

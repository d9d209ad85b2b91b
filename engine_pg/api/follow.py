"""The parameter `follow`: references and links of an answer replaced by what they lead to.

All of it comes from the request's one view.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, cast
from uuid import UUID

from starlette.responses import Response

from engine_pg.api.call import Call
from engine_pg.api.resources import catalog
from engine_pg.api.wire.document import Document, is_document
from engine_pg.api.wire.shape import Shape
from engine_pg.errors import Invalid
from engine_pg.replica.view import View

_PATHS: Final = re.compile(r"[a-z_]+(\.[a-z_]+)*(\s*,\s*[a-z_]+(\.[a-z_]+)*)*", re.ASCII)
_PATH_LIMIT: Final = 20
_DEPTH_LIMIT: Final = 4
_BREATH: Final = 100


async def answered(call: Call, shape: Shape, path: str, rows: Sequence[object]) -> Response:
    """Answer with a collection of rows, followed if the request asks for it."""
    if not call.text("follow"):
        return await call.answer_rows(shape, path, rows)
    documents: list[Document] = []
    for number, row in enumerate(rows, 1):
        documents.append(shape.document(row, call.base, path))
        if number % _BREATH == 0:
            await asyncio.sleep(0)  # a long list must not keep this node's heart from beating
    followed(call, documents)
    return await call.answer_all(shape.many, shape.one, documents)


def followed(call: Call, documents: Sequence[Document]) -> None:
    """Extend documents in place by what the request asks to follow."""
    text = call.text("follow")
    if not text:
        return
    paths = [path.strip().split(".") for path in text.split(",")]
    if not _PATHS.fullmatch(text) or len(paths) > _PATH_LIMIT:
        raise Invalid("The parameter follow is not a list of names")
    for path in paths:
        if len(path) > _DEPTH_LIMIT:
            raise Invalid(f"The parameter follow goes deeper than {_DEPTH_LIMIT} levels")
        _along(call.view, call.base, documents, path)


def _along(view: View, base: str, documents: Sequence[Document], path: Sequence[str]) -> None:
    name, rest = path[0], path[1:]
    found = _references(view, base, documents, name)
    found += _links(view, base, documents, name)
    if rest and found:
        _along(view, base, found, rest)


def _place(base: str, document: Document) -> tuple[str, UUID] | None:
    """Return the collection and the id that a document's href names."""
    collection, _, id_ = str(document.get("href", "")).removeprefix(f"{base}/").rpartition("/")
    try:
        return collection, UUID(id_)
    except ValueError:
        return None


def _references(view: View, base: str, documents: Sequence[Document], name: str) -> list[Document]:
    wanted: defaultdict[str, list[tuple[UUID, Document]]] = defaultdict(list)
    for document in documents:
        reference = document.get(name)
        place = _place(base, cast("Document", reference)) if is_document(reference) else None
        if place:
            wanted[place[0]].append((place[1], document))
    found: list[Document] = []
    for collection, owners in wanted.items():
        loaded = catalog.members(view, base, collection, [id_ for id_, _ in owners])
        for id_, document in owners:
            if id_ in loaded:
                document[name] = dict(loaded[id_])
                found.append(document[name])
    return found


def _links(view: View, base: str, documents: Sequence[Document], name: str) -> list[Document]:
    rel = name.replace("_", "")
    owners: defaultdict[str, list[tuple[UUID, Document]]] = defaultdict(list)
    for document in documents:
        links: list[dict[str, Any]] = document.get("link", [])
        place = _place(base, document)
        if place and any(link["rel"] == rel for link in links):
            owners[place[0]].append((place[1], document))
    found: list[Document] = []
    for collection, wanted in owners.items():
        one, loaded = catalog.parts(view, base, collection, rel, [id_ for id_, _ in wanted])
        for id_, document in wanted:
            members = loaded.get(id_, [])
            document[name] = {one: members} if members else {}
            found += members
    return found

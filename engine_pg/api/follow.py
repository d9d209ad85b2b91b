"""The parameter `follow`: references and links of an answer replaced by what they lead to.

Each step costs one query for all documents, however many there are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, cast
from uuid import UUID

from engine_pg.api.call import Call
from engine_pg.api.resources import catalog
from engine_pg.api.wire.document import Document, is_document
from engine_pg.db.tx import Tx
from engine_pg.errors import Invalid

_PATHS: Final = re.compile(r"[a-z_]+(\.[a-z_]+)*(\s*,\s*[a-z_]+(\.[a-z_]+)*)*", re.ASCII)
_PATH_LIMIT: Final = 20
_DEPTH_LIMIT: Final = 4


async def followed(call: Call, tx: Tx, documents: Sequence[Document]) -> None:
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
        await _along(tx, call.base, documents, path)


async def _along(tx: Tx, base: str, documents: Sequence[Document], path: Sequence[str]) -> None:
    name, rest = path[0], path[1:]
    found = await _references(tx, base, documents, name)
    found += await _links(tx, base, documents, name)
    if rest and found:
        await _along(tx, base, found, rest)


def _place(base: str, document: Document) -> tuple[str, UUID] | None:
    """Return the collection and the id that a document's href names."""
    collection, _, id_ = str(document.get("href", "")).removeprefix(f"{base}/").rpartition("/")
    try:
        return collection, UUID(id_)
    except ValueError:
        return None


async def _references(
    tx: Tx, base: str, documents: Sequence[Document], name: str
) -> list[Document]:
    wanted: defaultdict[str, list[tuple[UUID, Document]]] = defaultdict(list)
    for document in documents:
        reference = document.get(name)
        place = _place(base, cast("Document", reference)) if is_document(reference) else None
        if place:
            wanted[place[0]].append((place[1], document))
    found: list[Document] = []
    for collection, owners in wanted.items():
        loaded = await catalog.members(tx, base, collection, [id_ for id_, _ in owners])
        for id_, document in owners:
            if id_ in loaded:
                document[name] = dict(loaded[id_])
                found.append(document[name])
    return found


async def _links(tx: Tx, base: str, documents: Sequence[Document], name: str) -> list[Document]:
    rel = name.replace("_", "")
    owners: defaultdict[str, list[tuple[UUID, Document]]] = defaultdict(list)
    for document in documents:
        links: list[dict[str, Any]] = document.get("link", [])
        place = _place(base, document)
        if place and any(link["rel"] == rel for link in links):
            owners[place[0]].append((place[1], document))
    found: list[Document] = []
    for collection, wanted in owners.items():
        one, loaded = await catalog.parts(tx, base, collection, rel, [id_ for id_, _ in wanted])
        for id_, document in wanted:
            members = loaded.get(id_, [])
            document[name] = {one: members} if members else {}
            found += members
    return found

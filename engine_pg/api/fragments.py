"""Rows as they go over the wire, kept as long as the row's version is the one that is asked for.

A row in a view is immutable: its fragment is good until the view has another row in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from engine_pg.api.wire import json, xml
from engine_pg.api.wire.shape import Shape

_MOST: Final = 50_000
_BREATH: Final = 25
"""So many are encoded before others get their turn: a few milliseconds."""

_Kept = dict[UUID | int, tuple[object, bytes]]


class Fragments:
    """The fragments of one node; when they are too many, it begins anew."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._kept: dict[tuple[str, str, bool], _Kept] = {}
        self._count = 0

    async def of(
        self, shape: Shape, rows: Sequence[object], *, path: str, base: str, as_json: bool
    ) -> list[bytes]:
        """Return the fragments of rows."""
        kept = self._kept.setdefault((path, base, as_json), {})
        write = json.fragment if as_json else xml.fragment
        found: list[bytes] = []
        made = 0
        for row in rows:
            id_: UUID | int = getattr(row, shape.id_column)
            known = kept.get(id_)
            if known is not None and known[0] is row:
                found.append(known[1])
                continue
            fragment = write(shape.one, shape.document(row, base, path))
            self._count += known is None
            kept[id_] = (row, fragment)
            found.append(fragment)
            made += 1
            if made % _BREATH == 0:
                await asyncio.sleep(0)
        if self._count > self._most:
            self._kept, self._count = {}, 0
        return found

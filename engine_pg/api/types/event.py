"""Events on the wire: their ids are decimal, and what they tell about stands there by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from engine_pg.api.wire.document import Document, reference
from engine_pg.api.wire.kinds import DATE, STRING, Kind, integer
from engine_pg.api.wire.shape import Element, Shape, constant, filled, shown
from engine_pg.inventory.rows import Event

_Named = tuple[UUID, str]


def _subject(element: str, collection: str) -> Element:
    def source(event: Event) -> _Named | None:
        id_: UUID | None = getattr(event, f"{element}_id")
        return None if id_ is None else (id_, getattr(event, f"{element}_name") or "")

    return shown(element, _named(collection), source)


def _named(collection: str) -> Kind:
    def write(value: _Named, base: str) -> Document:
        return reference(base, collection, value[0], value[1])

    parse: Callable[[Any], Any] = str  # events are not read from clients
    return Kind("reference", parse, write)


EVENT: Final = Shape(
    "event",
    "events",
    "event_id",
    shown("index", integer(), "event_id"),
    shown("code", integer(), "code"),
    shown("severity", STRING, "severity"),
    shown("time", DATE, "at"),
    shown("description", STRING, "description"),
    filled("correlation_id", STRING, "correlation_id"),
    shown("origin", STRING, "origin"),
    shown("custom_id", integer(), "custom_id"),
    constant("flood_rate", integer(), 30),
    _subject("data_center", "datacenters"),
    _subject("cluster", "clusters"),
    _subject("host", "hosts"),
    _subject("vm", "vms"),
)

"""What a change looks like as a server-sent event, and which topics may leave the engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from engine_pg.cluster.feed import Change, Changes, Cursor

TOPICS: Final = (
    "cluster",
    "command",
    "data_center",
    "event",
    "host",
    "host_statistics",
    "leader",
    "member",
    "schedule",
    "setting",
    "vm",
)
"""What consumers may hear of: a table that is attached for the engine's own use stays its own."""
MEDIA_TYPE: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Event:
    """One change, encoded; all streams send the same bytes."""

    topic: str
    content: bytes


def events_of(found: Changes) -> Iterator[Event]:
    """Yield the changes of one read; the id of each is the cursor of who has read so far."""
    for change in found.changes:
        yield Event(change.topic, _encoded("change", found.cursor_at(change), _document(change)))


def resync(cursor: Cursor, reason: str) -> bytes:
    """Return the event that tells a client to take a new copy, and to go on from this cursor."""
    return _encoded("resync", cursor, {"cursor": str(cursor), "reason": reason})


def heartbeat(cursor: Cursor) -> bytes:
    """Return a sign of life; a client remembers the id and is told nothing."""
    return f": heartbeat\nid: {cursor}\n\n".encode()


def greeting() -> bytes:
    """Return what a stream begins with: how long a browser waits before it comes again."""
    return b"retry: 1000\n\n"


def farewell(reason: str) -> bytes:
    """Return a comment for people who watch the bytes."""
    return f": {reason}\n\n".encode()


def _document(change: Change) -> dict[str, object]:
    return {
        "topic": change.topic,
        "key": change.key,
        "op": change.op,
        "version": change.version,
        "at": change.at.astimezone(UTC).isoformat(),
        "row": change.row,
    }


def _encoded(kind: str, cursor: Cursor, document: dict[str, object]) -> bytes:
    data = json.dumps(document, separators=(",", ":"))  # ASCII: some clients break lines at U+2028
    return f"event: {kind}\nid: {cursor}\ndata: {data}\n\n".encode()

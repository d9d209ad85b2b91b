"""Templates on the wire: there is Blank, from which every VM is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from engine_pg.api.types.vm import HARDWARE
from engine_pg.api.wire.kinds import DATE, NAME, STRING, integer
from engine_pg.api.wire.shape import Shape, constant, shown
from engine_pg.ids import BLANK_TEMPLATE_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template, as far as there are any."""

    template_id: UUID = BLANK_TEMPLATE_ID
    name: str = "Blank"
    description: str = "Blank template"
    comment: str = ""
    memory_bytes: int = 1 << 30
    created_at: datetime = datetime(2008, 4, 1, tzinfo=UTC)  # as everywhere: it was always there
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])


BLANK: Final = Template()
TEMPLATE: Final = Shape(
    "template",
    "templates",
    "template_id",
    shown("name", NAME, "name"),
    shown("description", STRING, "description"),
    shown("comment", STRING, "comment"),
    shown("memory", integer(), "memory_bytes"),
    shown("creation_time", DATE, "created_at"),
    constant("status", STRING, "ok"),
    constant("type", STRING, "server"),
    constant("os/type", STRING, "other"),
    constant("cpu/topology/sockets", integer(), 1),
    constant("cpu/topology/cores", integer(), 1),
    constant("cpu/topology/threads", integer(), 1),
    constant("version/version_name", STRING, "base version"),
    constant("version/version_number", integer(), 1),
    *HARDWARE,
    links=(
        "cdroms", "diskattachments", "graphicsconsoles", "mediateddevices", "nics", "permissions",
        "tags", "watchdogs",
    ),
)  # fmt: skip

"""A formation for people and their tools: the document that REST and the command line show."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from engine_pg.db.tx import Tx
from engine_pg.formation import kept
from engine_pg.formation.commits import Hang
from engine_pg.formation.kept import FormationRow
from engine_pg.formation.state import FormationState, warnings_of

HAS: Final = "select to_regclass('formation') is not null as has"
OLD_S: Final = 30.0
"""Three times as old as a formation that is watched can be."""


def document(row: FormationRow | None, now: datetime, hang: Hang | None) -> dict[str, Any]:
    """Return what is known of a formation, with how old that is; no row: of none."""
    told = _EMPTY if row is None else _known(row, now)
    warnings = [] if hang is None else [hang.sentence]
    warnings += [] if row is None else warnings_of(state_of(row))
    return told | {"hang": None if hang is None else hang.document(), "warnings": warnings}


async def warnings(tx: Tx) -> list[str]:
    """Return sentences about all that was not well when the formation was looked at last."""
    has = await tx.first(HAS)
    row = await kept.read(tx) if has and has["has"] else None
    return [] if row is None else warnings_of(state_of(row))


def state_of(row: FormationRow) -> FormationState:
    """Return a state as it was seen last."""
    return FormationState(
        "",
        row.monitor,
        row.node_states(),
        synchronous=row.synchronous,
        standby_names=row.standby_names,
        wanted_standbys=row.wanted_standbys,
    )


def _known(row: FormationRow, now: datetime) -> dict[str, Any]:
    seen = row.monitor_seen_at
    return {
        "monitor": row.monitor,
        "monitor_age_s": None if seen is None else _age_s(seen, now),
        "age_s": _age_s(row.looked_at, now),
        "primary": row.primary_node,
        "synchronous": row.synchronous,
        "standby_names": row.standby_names,
        "wanted_standbys": row.wanted_standbys,
        "nodes": [asdict(node) for node in row.node_states()],
    }


_EMPTY: Final[dict[str, Any]] = {
    "monitor": "none",
    "monitor_age_s": None,
    "age_s": None,
    "primary": None,
    "synchronous": False,
    "standby_names": "",
    "wanted_standbys": None,
    "nodes": [],
}


def _age_s(at: datetime, now: datetime) -> float:
    return round(max(0.0, (now - at).total_seconds()), 1)

"""What is known of the formation, in the replica: it is asked for when the database is away."""

from __future__ import annotations

from typing import Any, Final

from engine_pg.formation.kept import ALL, NAME, TOPIC, FormationRow
from engine_pg.replica.table import Table
from engine_pg.replica.view import View

FORMATION: Final[tuple[Table[Any], ...]] = (
    Table(
        kind=FormationRow,
        topic=TOPIC,
        copy=ALL,
        key=lambda record: record["name"],
        place=lambda row: (row.name,),
    ),
)


def formation(view: View) -> FormationRow | None:
    """Return what was seen of the formation last, if anything."""
    return view.of(FormationRow).get(NAME)

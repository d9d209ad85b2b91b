"""All contenders, by name."""

from __future__ import annotations

from typing import Final

from benchmarks.jobs.contender import Contender
from benchmarks.jobs.dbos import DBOS
from benchmarks.jobs.ours import OURS
from benchmarks.jobs.pgqueuer import PGQUEUER
from benchmarks.jobs.procrastinate import STOCK

ALL: Final[dict[str, Contender]] = {each.name: each for each in (OURS, STOCK, PGQUEUER, DBOS)}

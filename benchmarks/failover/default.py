"""`python -m benchmarks.failover.default FILE ROUNDS KIND ...`: pg_auto_failover by default.

A formation whose servers and keepers have none of our settings, with a client that has nothing but
psycopg; what they go through is written to the file, a line each.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, LiteralString, cast

from engine_pg.clock import boottime
from engine_pg.db.database import Database
from engine_pg.errors import Unavailable
from engine_pg.formation import Formation, Plan
from engine_pg.formation.asking import ask
from engine_pg.formation.autoctl import Autoctl
from engine_pg.formation.place import MONITOR, Place
from engine_pg.formation.processes import processes_in
from engine_pg.formation.profiles import KEEPER as KEEPER_SETTINGS
from engine_pg.formation.profiles import MONITOR as MONITOR_SETTINGS
from engine_pg.formation.profiles import NODE as NODE_SETTINGS
from engine_pg.formation.programs import programs
from engine_pg.formation.state import look
from lab import faults, writer
from lab.enclosure import enclosed
from lab.faults import Kind
from lab.journal import Journals
from lab.machines import ELSEWHERE, Machines
from lab.seen import longest
from lab.stage import CLIENTS, client, successor

_HOME: Final = Path("/dev/shm/default")
_PORT: Final = 6000
_BOUND_S: Final = 180.0
_POLL_S: Final = 0.1
_SHOW: Final = "select name, current_setting(name) as value from pg_settings"
_WRITTEN: Final[LiteralString] = "select number from lab_write"
_OURS: Final = [
    setting
    for setting in (*MONITOR_SETTINGS, *NODE_SETTINGS)
    if re.match(r"pgautofailover\.|wal_(?!keep)", setting.name)
]
"""What decides how soon who is replaced; the others, of memory and logs, change no gap."""


@dataclass(frozen=True, slots=True)
class Default:
    """The formation and its machines."""

    machines: Machines
    formation: Formation

    @property
    def place(self) -> Place:
        """Return where the formation keeps its files."""
        return self.formation.place()

    async def part(self, old: str) -> None:
        """Cut the primary off from everybody."""
        names = {MONITOR, CLIENTS, ELSEWHERE, *self.place.nodes}
        await self.machines.cut({old}, names - {old})

    async def settled(self) -> None:
        """Start what does not run, and wait until every server is where it belongs."""
        deadline = boottime() + _BOUND_S
        while not (state := await look(self.place)).settled:
            if boottime() > deadline:
                raise Unavailable(f"the default formation does not settle: {state}")
            for name in self.place.nodes:
                if not processes_in(self.place.room(name)):
                    await asyncio.to_thread(self.formation.start, name)
            await asyncio.sleep(_POLL_S)


async def _measured(results: Path, rounds: int, kinds: list[Kind]) -> None:
    if not rounds:
        return
    machines = Machines()
    for number, name in enumerate((MONITOR, "node1", "node2")):
        await machines.make(name, _PORT + number)
    await machines.make(CLIENTS)
    default = Default(machines, Formation(_HOME / "formation", machines.inside))
    await asyncio.to_thread(default.formation.up, Plan(2, base_port=_PORT), lambda _: None)
    await asyncio.to_thread(_forget_ours, default)
    await _verified(default.place)
    url = default.formation.url()
    async with Database(url) as database, database.write() as tx:
        await tx.run(writer.TABLE)
    async with AsyncExitStack() as exits:
        inside, journals = machines.inside(CLIENTS), Journals(_HOME)
        given = (writer.__name__, url, str(journals.path("plain")), "plain", "plain")
        plain = await client(_HOME, inside, *given)
        exits.push_async_callback(plain.stop)
        for _ in range(rounds):
            for kind in kinds:
                found = await _suffered(default, kind, journals)
                print(f"by default, {kind}: write gap {found['write_gap_s']:.1f} s", flush=True)
                with results.open("a") as lines:
                    lines.write(json.dumps(found) + "\n")


def _forget_ours(default: Default) -> None:
    """Take our settings out of what the servers read, and tell the keepers theirs."""
    place = default.place
    for kind in ("monitor", "node"):
        file = place.home / f"{kind}.conf"
        lines = file.read_text().splitlines(keepends=True)
        names = {setting.name for setting in _OURS}
        kept = [line for line in lines if line.split("=")[0].strip() not in names]
        place.account.write(file, "".join(kept))
    autoctl = Autoctl(place, programs(), default.machines.inside)
    for name in place.nodes:
        for setting in KEEPER_SETTINGS:
            autoctl.assign(name, setting.name, setting.without_us)
    for name in place.memory.ports:
        default.formation.signal(name, faults.RELOAD)


async def _verified(place: Place) -> None:
    """See that the servers run with the defaults that our table of settings names."""
    deadline = boottime() + _BOUND_S
    while wrong := [said async for said in _ours_still(place)]:
        if boottime() > deadline:
            raise Unavailable(f"these are no defaults: {', '.join(wrong)}")
        await asyncio.sleep(_POLL_S)


async def _ours_still(place: Place) -> AsyncGenerator[str]:
    for name in place.memory.ports:
        rows = await ask(place, name, _SHOW)
        shown = {row["name"]: row["value"] for row in rows}
        for setting in MONITOR_SETTINGS if name == MONITOR else NODE_SETTINGS:
            if setting in _OURS and _plain(shown[setting.name]) != _plain(setting.without_us):
                yield f"{setting.name} of {name} is {shown[setting.name]}"


def _plain(value: str) -> str:
    return value.replace("1min", "60s")


async def _suffered(default: Default, kind: Kind, journals: Journals) -> dict[str, Any]:
    """Let one fault happen; return the gap, and how many acknowledged writes are lost."""
    await default.settled()
    primary = (await look(default.place)).primary
    assert primary is not None
    began = await _next(journals, boottime())
    await faults.begin(kind, default, primary.name)
    _, writable = await successor(default.place, primary.name, _BOUND_S)
    after = await _next(journals, writable)
    gap_s = longest([at for at in _since(journals, began) if at <= after])
    await faults.end(kind, default, primary.name)
    await default.settled()
    numbers = {entry["number"] for entry in journals.noted("plain", "acknowledged")}
    async with Database(default.formation.url()) as database, database.read() as tx:
        lost = numbers - {row["number"] for row in await tx.all(_WRITTEN)}
    return {"kind": kind, "write_gap_s": round(gap_s, 3), "lost": len(lost)}


async def _next(journals: Journals, at: float) -> float:
    """Wait until a write was acknowledged after a time; return when."""
    while not (since := _since(journals, at)):
        if boottime() > at + _BOUND_S:
            raise Unavailable("the plain client does not get on")
        await asyncio.sleep(_POLL_S)
    return since[0]


def _since(journals: Journals, at: float) -> list[float]:
    return [entry["at"] for entry in journals.noted("plain", "acknowledged", since=at)]


def main() -> int:
    """Measure in an enclosure."""
    results, rounds, *kinds = sys.argv[1:]

    def measure() -> int:
        _HOME.mkdir()
        _HOME.chmod(0o711)  # the servers' account must pass through
        asyncio.run(_measured(Path(results), int(rounds), cast("list[Kind]", kinds)))
        return 0

    return enclosed(measure)


if __name__ == "__main__":
    sys.exit(main())

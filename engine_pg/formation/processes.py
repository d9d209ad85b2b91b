"""Which processes belong to a node: those that work in its folder, whatever their titles say.

pg_autoctl and PostgreSQL overwrite titles and environments, and each backend is a session of its
own. The working folder stays: pg_autoctl is started in the node's, PostgreSQL works in its data.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from engine_pg.clock import boottime
from engine_pg.errors import Unavailable

_PROC: Final = Path("/proc")
_POLL_S: Final = 0.05
_ROUNDS: Final = 50


def processes_in(folder: Path) -> list[int]:
    """Return the processes that work in a folder or below it."""
    place = f"{folder.resolve()}/"
    found: list[int] = []
    for entry in _PROC.glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked
            if f"{(entry / 'cwd').readlink()}/".startswith(place) and not _is_zombie(entry):
                found.append(int(entry.name))
    return found


def signal_all(folder: Path, number: signal.Signals) -> None:
    """Send a signal to all processes of a folder, those included that they are just making."""
    told: set[int] = set()
    for _ in range(_ROUNDS):
        there = set(processes_in(folder))
        if not (new := there if number == signal.SIGKILL else there - told):
            return
        for pid in new:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        told |= new
        if number == signal.SIGKILL:
            time.sleep(_POLL_S)
    raise Unavailable(f"processes in {folder} do not end: {sorted(told)}")


def ask_to_stop(folder: Path) -> None:
    """Let those of a folder stop in order: what pg_autoctl has started ends with it."""
    signal_all(folder, signal.SIGCONT)  # the frozen hear nothing
    there = processes_in(folder)
    keepers = [pid for pid in there if _program(pid) == "pg_autoctl"]
    for pid in keepers or there:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM if keepers else signal.SIGINT)


def gone(folder: Path, bound_s: float) -> bool:
    """Wait until no process of a folder is left; say whether it came to that."""
    deadline = boottime() + bound_s
    while processes_in(folder):
        if boottime() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _is_zombie(entry: Path) -> bool:
    return (entry / "stat").read_text().rpartition(") ")[2].startswith("Z")


def _program(pid: int) -> str:
    with suppress(OSError):
        return (_PROC / str(pid) / "comm").read_text().strip()
    return ""

"""Which processes belong to a server, told from the titles that Linux shows to everybody."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engine_pg.db.embedded.site import Site

_PROC: Final = Path("/proc")


def postmaster_pid(site: Site) -> int | None:
    """Return the process id of the running server, None when the pid file is stale or absent."""
    try:
        pid = int((site.data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    if not _PROC.joinpath("self").exists():
        return pid if _is_alive(pid) else None
    return pid if str(site.data) in _title(pid).split("\0") else None


def orphans(site: Site) -> list[int]:
    """Return the server's processes whose postmaster is gone; they end soon by themselves."""
    beginning = f"postgres: {site.name}: "
    pids = (int(path.name) for path in _PROC.glob("[0-9]*"))
    return [pid for pid in pids if _title(pid).startswith(beginning)]


def _title(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace")
    except OSError:  # it ended while we looked
        return ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True

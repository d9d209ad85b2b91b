"""Small disks for the servers, in memory, that may be full for a while; in an enclosure only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SIZE_KB = 2 * 1024 * 1024
_ATTEMPTS = 20
_MORE_KB = 64


def mount(folder: Path) -> None:
    """Make a folder a disk of its own, entered by everybody."""
    folder.mkdir(exist_ok=True)
    options = f"size={SIZE_KB}k,mode=711"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def fill(folder: Path, room_kb: int) -> None:
    """Leave only so much room; who writes meanwhile may have taken it already."""
    for attempt in range(_ATTEMPTS):
        found = os.statvfs(folder)
        used_kb = (found.f_blocks - found.f_bfree) * found.f_frsize // 1024
        try:
            _resize(folder, used_kb + room_kb + attempt * _MORE_KB)
        except subprocess.CalledProcessError:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def empty(folder: Path) -> None:
    """Let there be room again."""
    _resize(folder, SIZE_KB)


def _resize(folder: Path, size_kb: int) -> None:
    options = f"remount,size={size_kb}k"
    subprocess.run(["mount", "-o", options, str(folder)], check=True)

"""Wall clocks that jump: each process sees the time of day that a file of its own says.

The preloaded libfaketime leaves all other clocks alone, as a step of a machine's clock does. A
server is started without any environment of ours, so that in an enclosure a script is mounted over
its program. Without the library (Debian's faketime) nothing is changed, and no clock jumps.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from engine_pg.db.embedded.account import account_for
from engine_pg.db.embedded.programs import programs_for

LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")
SERVER = """#!/bin/sh
clock=$(dirname "$2")/clock
if [ "$1" = -D ] && [ -f "$clock" ]; then
  export {settings} FAKETIME_TIMESTAMP_FILE="$clock"
fi
exec {program} "$@"
"""
SERVER_CLOCK = "clock"
PROGRAMS = Path("/dev/shm/programs")  # an enclosure's own; whoever empties the run's folder is safe


class Clocks:
    """The clocks of a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "clocks"
        self._folder.mkdir()
        places = [pattern.removeprefix("/") for pattern in LIBRARIES]
        found = [path for place in places for path in Path("/").glob(place)]
        self._settings = {
            "LD_PRELOAD": f"{found[0]}" if found else "",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1",
        }
        self._files: dict[str, Path] = {}

    @property
    def may_jump(self) -> bool:
        return bool(self._settings["LD_PRELOAD"])

    def environment(self, name: str) -> Mapping[str, str]:
        """Return what a process needs in its environment to see its own clock."""
        if not self.may_jump:
            return {}
        file = self._files[name] = self._folder / name
        self.jump(name, 0)
        return self._settings | {"FAKETIME_TIMESTAMP_FILE": str(file)}

    def give_servers_clocks(self, *homes: Path) -> None:
        """Let the servers in these folders have clocks from now on; in an enclosure only."""
        if not self.may_jump:
            return
        for home in homes:
            self._files[home.name] = home / SERVER_CLOCK
            self.jump(home.name, 0)
        folder = programs_for(account_for(homes[0] / "data"), None, homes[0] / "programs").folder
        PROGRAMS.mkdir()
        libraries = folder.parents[2]  # the programs find what they need relative to themselves
        words = [f"{name}={value}" for name, value in self._settings.items()]
        script = self._folder.parent / "postgres"
        program = PROGRAMS / folder.relative_to(libraries) / "postgres"
        script.write_text(SERVER.format(settings=" ".join(words), program=program))
        script.chmod(0o755)
        for source, place in ((libraries, PROGRAMS), (script, folder / "postgres")):
            words = ["mount", "--options", "bind,ro", str(source), str(place)]
            subprocess.run(words, check=True)

    def jump(self, name: str, by_s: float) -> None:
        """Set a clock so many seconds away from everybody else's."""
        file = self._files[name]
        draft = file.with_name(f".{file.name}.new")
        draft.write_text(f"{by_s:+g}\n")
        draft.chmod(0o644)
        draft.replace(file)

    def knows(self, name: str) -> bool:
        """Say whether a process has a clock that may jump."""
        return name in self._files

"""One process of a stack: it is started again when it dies, and dies when its starter does."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from engine_pg.clock import boottime

State = Literal["stopped", "running", "frozen", "pausing"]

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 15.0
_STABLE_S: Final = 30.0  # who lived this long starts again without delay
_LOG_BYTES: Final = 20 * 1024 * 1024
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


class Process:
    """A command that runs while it is wanted.

    `tell` hears of everything unexpected, `changed` of each birth and death.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        tell: Callable[[str], None],
        changed: Callable[[], None],
        *,
        env: Mapping[str, str],
        log: Path,
    ) -> None:
        self.name = name
        self.log = log
        self.deaths = 0
        self._command = command
        self._env = env
        self._tell = tell
        self._changed = changed
        self._wanted = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._frozen = False
        self._ending = False  # on request

    @property
    def pid(self) -> int | None:
        """Return the process id while there is a process."""
        return self._process.pid if self._process else None

    @property
    def state(self) -> State:
        """Say what the process does; `pausing` is the time between a death and the next life."""
        if self._process:
            return "frozen" if self._frozen else "running"
        return "pausing" if self._wanted.is_set() else "stopped"

    def start(self) -> None:
        """Want the process to run; `keep` sees to it."""
        self._wanted.set()

    async def keep(self) -> None:
        """Start the process whenever it is wanted and does not run, until cancelled."""
        pause_s = _FIRST_PAUSE_S
        while True:
            await self._wanted.wait()
            began = boottime()
            self._ending = False
            code = await self._live()
            if self._ending:
                continue
            self.deaths += 1
            if boottime() - began > _STABLE_S:
                pause_s = _FIRST_PAUSE_S
            self._tell(f"{self.name} died ({_cause(code)}); again in {pause_s:g} s: {self.log}")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def stop(self, bound_s: float = 10.0) -> None:
        """End the process in order, by force when it takes longer than the bound."""
        self._end()
        if not (process := self._process):
            return
        self.thaw()
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(bound_s):
                await process.wait()
        except TimeoutError:
            self._tell(f"{self.name} did not stop within {bound_s:g} s and was killed")
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End the process as a crash would; it stays dead until started."""
        self._end()
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the process where it stands, unaware, as a paused machine would."""
        self._frozen = self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)
        self._frozen = False

    def tail(self, lines: int = 10) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _end(self) -> None:
        self._wanted.clear()
        self._ending = True

    async def _live(self) -> int:
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old.log"))
        parent = os.getpid()
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is ours to pass on, in order
                preexec_fn=lambda: _die_with(parent),
            )
        self._process = process
        self._frozen = False
        self._changed()
        try:
            if self._ending:  # stopped while it was being started
                self._signal(signal.SIGKILL)
            return await process.wait()
        except asyncio.CancelledError:
            self._signal(signal.SIGKILL)
            await process.wait()
            raise
        finally:
            self._process = None
            self._changed()

    def _signal(self, number: signal.Signals) -> bool:
        """Send a signal to the process and all that it started; say whether it was there."""
        if not self._process or self._process.returncode is not None:
            return False
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return False
        return True


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, however that dies."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"

"""Whose rights the server runs with: PostgreSQL refuses root, so root lends it an account."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from engine_pg.errors import Conflict, Invalid

_CANDIDATES: Final = ("postgres", "nobody")  # existing ones only: we create no accounts
_BOUND_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Account:
    """The system account that owns the server's files and processes."""

    uid: int
    gid: int
    borrowed: bool  # root gives its processes and files away to it

    def run(
        self,
        *command: str | Path,
        cwd: str | Path = "/",  # the caller's own folder may be closed to the account
        env: Mapping[str, str] = MappingProxyType({}),
        inside: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this account and return its merged output, whatever its exit status.

        `inside` leads to another machine's namespaces, as only root may go there.
        """
        known = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}  # no PG*, no LD_*
        if inside and self.borrowed:
            own = (f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups")
            itself = Account(os.geteuid(), os.getegid(), borrowed=False)
            return itself.run(*inside, "setpriv", *own, *command, cwd=cwd, env=env)
        return subprocess.run(
            [*inside, *(str(word) for word in command)],
            cwd=cwd,
            env=known | dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_BOUND_S,
            umask=0o077,
            user=self.uid if self.borrowed else None,
            group=self.gid if self.borrowed else None,
            extra_groups=[] if self.borrowed else None,
        )

    def reaches(self, folder: Path) -> bool:
        """Say whether the account can enter the folder."""
        return (
            not self.borrowed or self.run("/bin/sh", "-c", 'cd "$1"', "sh", folder).returncode == 0
        )

    def own_folder(self, folder: Path) -> None:
        """Create a private folder of the account's; refuse what somebody else laid there."""
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != self.uid:
                raise Conflict(f"{folder} belongs to somebody else: remove it") from None
        else:
            if self.borrowed:
                os.chown(folder, self.uid, self.gid)

    def write(self, file: Path, text: str) -> None:
        """Write a private file of the account's, replacing the old one in one step."""
        draft = file.with_name(f".{file.name}.new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
            if self.borrowed:
                os.fchown(descriptor, self.uid, self.gid)
        draft.replace(file)


def account_for(data: Path) -> Account:
    """Return the account that the server over a data folder runs under."""
    if os.geteuid() != 0:
        return _own_account()
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid, borrowed=True)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, borrowed=True)
    raise Invalid(
        f"PostgreSQL does not run as root, and none of the accounts {', '.join(_CANDIDATES)} exists"
    )


def _own_account() -> Account:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError as missing:
        raise Invalid(
            f"PostgreSQL wants to know its user's name, and user {os.geteuid()} has none:"
            " add it to /etc/passwd"
        ) from missing
    return Account(os.geteuid(), os.getegid(), borrowed=False)

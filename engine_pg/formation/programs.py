"""Where pg_autoctl and the PostgreSQL that it drives are; what to install where they are not."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine_pg.errors import Invalid

PACKAGES: Final = "pg-auto-failover-cli postgresql-15-auto-failover openssl"
_ROOT: Final = Path("/usr/lib/postgresql")
_EXTENSION: Final = Path("lib/pgautofailover.so")


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of a formation."""

    autoctl: str
    openssl: str
    postgres: Path  # the folder of PostgreSQL's own

    @property
    def path(self) -> str:
        """Return the PATH under which pg_autoctl finds the right PostgreSQL first."""
        return f"{self.postgres}:/usr/sbin:/usr/bin:/sbin:/bin"


def programs(root: Path = _ROOT) -> Programs:
    """Find the programs, or raise `Invalid` and say what to install."""
    autoctl, openssl = shutil.which("pg_autoctl"), shutil.which("openssl")
    found = sorted(root.glob(f"*/{_EXTENSION}"), key=lambda path: int(path.parents[1].name))
    if autoctl is None or openssl is None or not found:
        missing = [
            name
            for name, there in (
                ("pg_autoctl", autoctl),
                ("openssl", openssl),
                (f"{_EXTENSION.name} of a PostgreSQL in {root}", found),
            )
            if not there
        ]
        raise Invalid(
            f"a formation needs {' and '.join(missing)}: on Debian, apt-get install {PACKAGES}"
            " (PostgreSQL's package starts a server of its own, unless create_main_cluster = false"
            " stands in /etc/postgresql-common/createcluster.conf)"
        )
    return Programs(autoctl, openssl, found[-1].parents[1] / "bin")

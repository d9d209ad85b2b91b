"""What all nodes of a formation share: certificates, passwords, settings, who may come in.

Settings and `pg_hba.conf` are outside of the data folders, and included from there: a copy of the
primary and a rewind bring its files along, and each node then still reads these.

The authority that signs the servers' certificate is made for that one signature; its key is gone.
"""

from __future__ import annotations

import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine_pg.db.embedded.configuration import TUNED, settings_text
from engine_pg.errors import Unavailable
from engine_pg.formation.place import (
    ADDRESS,
    DATABASE,
    KEEPER,
    MONITOR,
    MONITOR_DATABASE,
    OWNER,
    REPLICATOR,
    WATCHER,
    Place,
)
from engine_pg.formation.profiles import MONITOR as MONITOR_SETTINGS
from engine_pg.formation.profiles import NODE as NODE_SETTINGS
from engine_pg.formation.profiles import Profile, chosen
from engine_pg.formation.programs import Programs

SUPERUSER_MAP: Final = "formation"
_DAYS: Final = "3650"
_CURVE: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

# The superuser comes in through the socket folder alone, by his system account: no password at all.
# `postgres` beside `replication`: pg_rewind reads through that database; without the line each
# rejoin falls back to a whole copy. The checks of the monitor use a password that is public, which
# opens nothing: their role has no right and one connection.
_HBA_MONITOR: Final = f"""\
local   {MONITOR_DATABASE}      all                               peer map={SUPERUSER_MAP}
local   postgres              all                               peer map={SUPERUSER_MAP}
hostssl {MONITOR_DATABASE}      {KEEPER}  @network  scram-sha-256
hostssl {MONITOR_DATABASE}      {WATCHER}  @network  scram-sha-256
"""
_HBA_NODE: Final = f"""\
local   all                   all                               peer map={SUPERUSER_MAP}
hostssl {DATABASE}                @roles  @network  scram-sha-256
hostssl replication,postgres  {REPLICATOR}  @network  scram-sha-256
hostssl postgres              pgautofailover_monitor  @network  scram-sha-256
"""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the servers are to find their files and each other, and who comes to them."""

    home: Path
    address: str
    """What they listen on."""

    network: str
    """Where keepers, standbys and engines come from, as pg_hba.conf names it."""

    roles: tuple[str, ...]
    """Who may connect to the engine's database."""

    superuser: str
    accounts: tuple[str, ...]
    """System accounts that are the superuser on their own machine."""


def lay_out(place: Place, programs: Programs) -> None:
    """Write all that is shared; certificates and folders only when they are not there."""
    account = place.account
    for folder in (place.home, place.tls, place.sockets, *map(place.room, place.memory.ports)):
        if not folder.exists():
            account.own_folder(folder)
    if not (place.tls / "server.crt").exists():
        _make_certificates(place, programs)
    shutil.copyfile(place.tls / "ca.crt", place.authority)
    place.authority.chmod(0o644)
    passwords = place.memory.passwords
    lines = [f"{ADDRESS}:*:*:{name}:{passwords[name]}\n" for name in (KEEPER, REPLICATOR)]
    account.write(place.pgpass, "".join(lines))
    write_settings(place)


def write_settings(place: Place) -> None:
    """Write the settings of the place's profile and who may connect; servers reload them."""
    owner = superuser(place)
    accounts = tuple(dict.fromkeys((owner, "root")))
    site = Site(place.home, ADDRESS, f"{ADDRESS}/32", (OWNER,), owner, accounts)
    for name, text in settings_files(site, place.memory.profile).items():
        place.account.write(place.home / name, text)


def settings_files(site: Site, profile: Profile) -> dict[str, str]:
    """Return the files that servers include, by name: settings, and who may connect as whom."""
    names = "".join(
        f"{SUPERUSER_MAP} {account} {role}\n"
        for account in site.accounts
        for role in (site.superuser, KEEPER)
    )
    ident = {"listen_addresses": site.address, "ident_file": str(site.home / "pg_ident.conf")}
    monitor = ident | {"hba_file": str(site.home / "monitor_hba.conf")}
    node = ident | {"hba_file": str(site.home / "node_hba.conf")}
    monitor |= chosen(MONITOR_SETTINGS, profile)
    node = dict(TUNED) | chosen(NODE_SETTINGS, profile) | node
    rules = {"monitor_hba.conf": _HBA_MONITOR, "node_hba.conf": _HBA_NODE}
    return {
        "pg_ident.conf": names,
        "monitor.conf": settings_text(monitor),
        "node.conf": settings_text(node),
        **{
            name: text.replace("@network", site.network).replace("@roles", ",".join(site.roles))
            for name, text in rules.items()
        },
    }


def include_settings(place: Place, name: str) -> None:
    """Make a server, not started yet, read the shared settings after all others."""
    kind = "monitor" if name == MONITOR else "node"
    file = place.data(name) / "postgresql.conf"
    line = f"include '{place.home / kind}.conf'\n"
    if line not in file.read_text():
        with file.open("a", encoding="utf-8") as stream:
            stream.write(line)


def superuser(place: Place) -> str:
    """Return the database superuser: named as the system account, for pg_autoctl is."""
    return pwd.getpwuid(place.account.uid).pw_name


def tls_words(place: Place) -> tuple[str, ...]:
    """Return how pg_autoctl is told of the certificates."""
    tls = place.tls
    return (
        *("--ssl-ca-file", str(tls / "ca.crt"), "--ssl-mode", "verify-full"),
        *("--server-cert", str(tls / "server.crt"), "--server-key", str(tls / "server.key")),
    )


def _make_certificates(place: Place, programs: Programs) -> None:
    tls = place.tls

    def openssl(*words: str | Path) -> None:
        result = place.account.run(programs.openssl, *words)
        if result.returncode:
            raise Unavailable(f"openssl {words[0]}: {result.stdout.strip()[-500:]}")

    names = tls / "names"
    place.account.write(names, f"subjectAltName=IP:{ADDRESS}\n")
    authority = (tls / "ca.key", tls / "ca.crt")
    openssl(
        *("req", "-x509", *_CURVE, "-days", _DAYS, "-subj", "/CN=engine-pg formation"),
        *("-keyout", authority[0], "-out", authority[1]),
    )
    openssl(
        *("req", *_CURVE, "-subj", f"/CN={ADDRESS}"),
        *("-keyout", tls / "server.key", "-out", tls / "server.csr"),
    )
    openssl(
        *("x509", "-req", "-days", _DAYS, "-in", tls / "server.csr", "-extfile", names),
        *("-CA", authority[1], "-CAkey", authority[0], "-CAcreateserial"),
        *("-out", tls / "server.crt"),
    )
    for done in (authority[0], names, tls / "server.csr", tls / "ca.srl"):
        done.unlink(missing_ok=True)

"""What the servers of a formation on machines of one's own are given: settings, rules, roles.

The same settings as `engine-pg formation up` uses, in files for whoever lays a formation out
himself, in containers or on hosts. Of each password they hold the verifier alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from psycopg import sql

from engine_pg.db import roles
from engine_pg.db.scram import verifier
from engine_pg.formation.access import MAKE_WATCHER, REPLICATOR_RIGHTS, WATCHER_RIGHTS
from engine_pg.formation.layout import Site, settings_files
from engine_pg.formation.place import DATABASE, KEEPER, REPLICATOR, WATCHER
from engine_pg.formation.profiles import KEEPER as KEEPER_SETTINGS
from engine_pg.formation.profiles import Profile, chosen

NAMES: Final = (KEEPER, REPLICATOR, WATCHER, *roles.KINDS)
"""Whose passwords are asked for."""

_ACCOUNT: Final = "postgres"
_PASSWORD: Final = sql.SQL("alter role {} password {};\n")
_UNLESS_THERE: Final = """\
select '{query}' where not exists (select from pg_roles where rolname = '{role}') \\gexec
"""
_MAKE_DATABASE: Final = """\
select 'create database @database'
 where not exists (select from pg_database where datname = '@database') \\gexec
\\connect @database
"""


def files(
    home: Path, profile: Profile, passwords: Mapping[str, str], *, network: str
) -> dict[str, str]:
    """Return the files by name; `home` is where the servers will find them.

    `monitor.conf` and `node.conf` are to be included at the end of postgresql.conf; `monitor.sql`
    and `node.sql` are for psql, as superuser, the latter on the first primary. `keeper.conf` has
    lines for `pg_autoctl config set`.
    """
    names = tuple(roles.names().values())
    site = Site(home, "*", network, names, _ACCOUNT, (_ACCOUNT,))
    keeper = chosen(KEEPER_SETTINGS, profile)
    of_roles = {kind: passwords[kind] for kind in roles.KINDS}
    database = _MAKE_DATABASE.replace("@database", DATABASE)
    node = _password(REPLICATOR, passwords) + REPLICATOR_RIGHTS.as_string()
    return settings_files(site, profile) | {
        "keeper.conf": "".join(f"{name} {value}\n" for name, value in keeper.items()),
        "monitor.sql": _password(KEEPER, passwords) + _watcher(passwords),
        "node.sql": node + database + roles.sql(passwords=of_roles),
    }


def _watcher(passwords: Mapping[str, str]) -> str:
    made = _UNLESS_THERE.format(query=MAKE_WATCHER.as_string(), role=WATCHER)
    return made + WATCHER_RIGHTS.as_string() + _password(WATCHER, passwords)


def _password(role: str, passwords: Mapping[str, str]) -> str:
    hashed = verifier(passwords[role])
    return _PASSWORD.format(sql.Identifier(role), hashed).as_string()

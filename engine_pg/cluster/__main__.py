"""`python -m engine_pg.cluster`: install the cluster's schema into a database, or drop it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from engine_pg.cluster import schema
from engine_pg.errors import EngineError


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    given = _parser().parse_args(arguments)
    try:
        if given.action == "uninstall":
            schema.uninstall(given.url, given.schema)
        elif given.sql:
            sys.stdout.write(schema.sql(given.schema))
        elif given.url is None:
            raise EngineError("name the database by its URL, or ask for the SQL with --sql")
        else:
            schema.install(given.url, given.schema)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine_pg.cluster", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    install = actions.add_parser("install", help="install or upgrade; harmless when it is there")
    install.add_argument("url", nargs="?", help="postgresql://user@host/name")
    install.add_argument("--sql", action="store_true", help="print SQL for a DBA instead")
    uninstall = actions.add_parser("uninstall", help="drop it, while no member lives in it")
    uninstall.add_argument("url")
    for each in (install, uninstall):
        each.add_argument("--schema", default=schema.SCHEMA, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""`make soak-jobs`: many commands while PostgreSQL restarts and nodes die; 1: a promise broke."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from engine_pg.db.embedded import EmbeddedPostgres
from engine_pg.db.migrate import upgrade
from jobstorm.storm import Storm, Weather


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobstorm", description=__doc__)
    parser.add_argument("--commands", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rate", type=float, default=40.0, help="commands submitted a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, help="add a line of JSON there")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="engine-pg-storm-"))
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder / "postgres")
    try:
        server.start()
        url = server.url()
        upgrade(url)
        storm = Storm(server, url, given.seed, Weather())
        log = asyncio.run(storm.rage(given.commands, given.nodes, given.rate))
    finally:
        server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)
    found = {"violations": len(log.violations), "first": log.violations[:20]}
    told = json.dumps({"seed": given.seed} | asdict(log) | found)
    print(told)
    if given.report:
        with given.report.open("a") as report:
            report.write(told + "\n")
    sys.exit(1 if log.violations else 0)


if __name__ == "__main__":
    main()

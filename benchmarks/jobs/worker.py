"""`python -m benchmarks.jobs.worker CONTENDER URL NAME`: one worker process.

It writes a line for each start of a command: its number, and when by the machine's clock.
"""

from __future__ import annotations

import logging
import sys

import uvloop

from benchmarks.jobs.contenders import ALL
from engine_pg.clock import boottime


def _began(number: int) -> None:
    sys.stdout.write(f"{number} {boottime()}\n")
    sys.stdout.flush()


def main() -> None:
    """Work until killed."""
    contender, url, name = sys.argv[1:]
    logging.basicConfig(level=logging.ERROR)
    uvloop.run(ALL[contender].work(url, name, _began))


if __name__ == "__main__":
    main()

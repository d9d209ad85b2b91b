"""`python -m benchmarks` (`make bench`): run those that are named, or all but the long ones.

make bench                              all, a few minutes each
make bench ARGS="locks"                 one
make bench ARGS="failover"              a long one: half an hour, and only for root
python -m benchmarks.locks --help       what one of them can be told
"""

from __future__ import annotations

import runpy
import sys
from typing import Final

USUAL: Final = ("locks", "feed", "jobs")
ALL: Final = (*USUAL, "failover")


def main() -> None:
    """Run the benchmarks whose names are given, or the usual ones."""
    names = sys.argv[1:] or USUAL
    if unknown := [name for name in names if name not in ALL]:
        print(f"There is no benchmark {', '.join(unknown)}.\n{__doc__}", file=sys.stderr)
        sys.exit(2)
    for name in names:
        print(f"benchmarks.{name} (see python -m benchmarks.{name} --help)\n")
        sys.argv = [f"benchmarks.{name}"]
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")


if __name__ == "__main__":
    main()

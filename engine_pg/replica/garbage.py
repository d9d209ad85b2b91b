"""Python's collector of cyclic garbage, told that rows are not worth its while.

It stops the whole process while it looks through everything that is alive, now and then: with ten
thousand rows for some hundredth of a second. Rows are in no cycle; they go when nobody has them.
"""

from __future__ import annotations

import gc
from typing import Final

_OLD_AFTER: Final = 500
"""So many looks at what is young before one at everything (Python's own choice is 10)."""


def spare_rows() -> None:
    """Let everything that is there now be looked at no more, and what comes seldom."""
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _OLD_AFTER)
    gc.collect()
    gc.freeze()

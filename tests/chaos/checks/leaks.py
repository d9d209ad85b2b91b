"""Nothing left: when everything was released, nothing is left that belongs to nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chaos.checks import Violation


def check(when: str, left: Mapping[str, Sequence[Any]]) -> Iterator[Violation]:
    """Yield what is left of each kind (grants, tickets, advisory locks) at a quiet moment."""
    for kind, found in left.items():
        if found:
            shown = ", ".join(str(each) for each in found[:3])
            yield Violation("nothing left", f"{when}, {len(found)} {kind} are left: {shown}")

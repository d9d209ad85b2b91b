"""Rising tokens: the tokens of a key and the terms of a name rise strictly, by real time."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from chaos.checks import Violation
from chaos.history import Operation


def check_tokens(operations: Iterable[Operation]) -> Iterator[Violation]:
    """Yield acquisitions whose token is not above that of one that had returned before."""
    grants: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for operation in operations:
        if operation.op == "acquire" and operation.outcome == "ok":
            for key, token in operation.result["tokens"].items():
                grants[key].append((operation.call, operation.ret, token))
    for key, found in grants.items():
        tokens = [token for _, _, token in found]
        if len(set(tokens)) < len(tokens):
            yield Violation("rising tokens", f"a token of {key} was granted twice")
        yield from _falling(key, sorted(found))


def _falling(key: str, grants: list[tuple[float, float, int]]) -> Iterator[Violation]:
    returned: list[tuple[float, int]] = []
    highest = -1
    for call, ret, token in grants:
        while returned and returned[0][0] < call:
            highest = max(highest, heapq.heappop(returned)[1])
        if token <= highest:
            yield Violation(
                "rising tokens", f"{key} was granted under {token} after {highest} had been granted"
            )
        heapq.heappush(returned, (ret, token))


def check_terms(records: Iterable[Mapping[str, Any]]) -> Iterator[Violation]:
    """Yield terms that do not rise with time, or are led by two members."""
    newest: dict[str, int] = {}
    leaders: dict[tuple[str, int], str] = {}
    for record in records:
        if record["kind"] != "led":
            continue
        name, term, member = record["name"], record["term"], record["member"]
        if leaders.setdefault((name, term), member) != member:
            yield Violation("rising tokens", f"{name}, term {term} was led by two members")
        if term < newest.get(name, 0):
            yield Violation("rising tokens", f"{name}, term {term} began after term {newest[name]}")
        newest[name] = max(term, newest.get(name, 0))

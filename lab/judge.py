"""What a failover may not do, looked for in what everybody noted.

On the side that goes on: members keep their locks under the same tokens, and every read is
answered. On the old primary's side of a cut: nothing is acknowledged any more, neither by the
database nor by the engine's node, which says 503; its reads are answered all the same, from memory,
and tell their age; a member there believes in itself no longer than until somebody else gets its
lock, which then has a higher token. With the profile `safe`, no two servers take writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, LiteralString

from engine_pg.formation.profiles import Profile
from lab.askers import Asked
from lab.journal import Entry
from lab.seen import Failover
from lab.stage import APART, Stage

HOLDERS: Final = ("near holder", "far holder")
WRITERS: Final = ("near writer", "far writer")
_WRITTEN: Final[LiteralString] = "select writer, number from lab_write"
_TOKENS: Final[LiteralString] = """
select token from lock_grant
 where member_id = %(member)s and token = any(%(tokens)s::bigint[]) order by token
"""


async def violations(stage: Stage, seen: Failover, before: Mapping[str, Entry]) -> list[str]:
    """Return in sentences what promises broke; `before` is what holders of locks had."""
    found = [
        f"{figure.title}: {figure.value:g}" for figure in seen.report.figures if not figure.kept
    ]
    if seen.lost:
        found.append(f"{seen.lost} acknowledged writes are lost")
    found += reads_failed(seen.asked)
    found += await _locks_lost(stage, "near holder", before)
    if seen.kind == "partition":
        found += [*overlaps(stage, seen), *acknowledged_apart(stage, seen), *told_apart(seen)]
        found += both_open(stage.size.profile, seen)
    else:
        found += await _locks_lost(stage, "far holder", before)
    return found


async def lost(stage: Stage) -> int:
    """Return how many acknowledged writes are not there."""
    noted = {
        (who, entry["number"]) for who in WRITERS for entry in stage.noted(who, "acknowledged")
    }
    async with stage.database() as database, database.read() as tx:
        there = {(row["writer"], row["number"]) for row in await tx.all(_WRITTEN)}
    return len(noted - there)


async def _locks_lost(stage: Stage, who: str, all_before: Mapping[str, Entry]) -> list[str]:
    """Say of a member what it no longer holds under its token of before, if anything."""
    before = all_before[who]
    if ended := stage.noted(who, "ended", since=before["at"]):
        return [f"the {who} has lost its locks: {ended[0]['why']}"]
    asked = {"member": before["member"], "tokens": before["tokens"]}
    async with stage.database() as database, database.read() as tx:
        held = [row["token"] for row in await tx.all(_TOKENS, asked)]
    if held != before["tokens"]:
        return [f"of {len(before['tokens'])} tokens of the {who} there are {len(held)} left"]
    return []


def reads_failed(asked: Sequence[Asked]) -> Iterator[str]:
    """Yield which reads failed."""
    for each in asked:
        if each.kind == "read" and not each.good:
            took_s = each.ended - each.began
            yield f"a read of {each.node} got {each.status or 'no answer'} after {took_s:.1f} s"


def overlaps(stage: Stage, seen: Failover) -> Iterator[str]:
    """Yield what was wrong about the lock that the far member lost."""
    had = [entry for entry in stage.noted("far holder", "got") if entry["at"] < seen.done][-1]
    first = stage.noted("near holder", "got", since=seen.done)[0]
    trusts = stage.noted("far holder", "trusts")
    believed = max(entry["until"] for entry in trusts if entry["at"] < first["at"])
    if believed > first["at"]:
        yield f"two had one lock for {believed - first['at']:.3f} s"
    if first["token"] <= had["token"]:
        yield f"a lock was granted under token {first['token']} after {had['token']}"


def acknowledged_apart(stage: Stage, seen: Failover) -> Iterator[str]:
    """Yield what the old primary acknowledged after the cut."""
    for who, what in (("far writer", "acknowledged"), ("far holder", "worked")):
        for entry in stage.noted(who, what, since=seen.done):
            if seen.done < entry["began"] and entry["at"] < seen.healed:
                after_s = entry["at"] - seen.done
                yield f"the {who} got a commit acknowledged {after_s:.2f} s after the cut"


def both_open(profile: Profile, seen: Failover) -> Iterator[str]:
    """Yield for how long two servers took writes, where a profile rules that out."""
    if profile == "safe" and seen.overlap_s:
        yield f"two servers took writes for {seen.overlap_s:.2f} s"


def told_apart(seen: Failover) -> Iterator[str]:
    """Yield what the engine's node on that side said to its clients that it had better not."""
    asked = [each for each in seen.asked if each.node == APART and seen.done < each.began]
    for each in asked:
        if each.kind == "write" and not each.refused:
            got, after_s = each.status or "no answer", each.began - seen.done
            yield f"a write to {APART} got {got} {after_s:.2f} s after the cut"
    reads = [each for each in asked if each.kind == "read" and each.ended < seen.healed]
    if not any(each.staleness_s for each in reads):
        yield f"no read of {APART} told its age"

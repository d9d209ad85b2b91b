from __future__ import annotations

import asyncio
import os
from threading import Event

import pytest

from engine_pg.errors import Conflict, Invalid
from engine_pg.simulator import journal as module
from engine_pg.simulator.journal import Journal, Reader


def written(path) -> list[dict]:
    with path.open("rb") as lines:
        return list(Reader(lines))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def test_records_are_numbered_on_across_processes(path):
    with Journal(path) as journal:
        assert [journal.append("a", x=1), journal.append("b")] == [1, 2]
    with Journal(path) as journal:
        assert [record["kind"] for record in journal.records()] == ["a", "b"]
        assert journal.append("c") == 3
    assert [record["seq"] for record in written(path)] == [1, 2, 3]


def test_a_record_can_be_read_as_soon_as_it_is_appended(path):
    with Journal(path) as journal:
        journal.append("a")
        assert [record["kind"] for record in written(path)] == ["a"]


@pytest.mark.parametrize("tail", [b'{"seq":2,"ki', b"x" * 200_000])
def test_a_torn_last_line_is_removed_when_opened(path, tail):
    with Journal(path) as journal:
        journal.append("a")
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(tail)
    with path.open("rb") as lines:
        reader = Reader(lines)
        assert [record["kind"] for record in reader] == ["a"]
        assert reader.torn
    with Journal(path) as journal:
        assert journal.torn_bytes == len(tail)
        assert path.stat().st_size == whole


def test_a_journal_that_is_one_torn_line_is_empty(path):
    path.write_bytes(b"x" * 100_000)
    with Journal(path) as journal:
        assert list(journal.records()) == []
        assert journal.append("a") == 1


def test_a_second_process_cannot_write_the_same_journal(path):
    with Journal(path), pytest.raises(Conflict, match="journal"):
        Journal(path)
    Journal(path).__exit__()


@pytest.mark.parametrize("line", [b"{", b"[]", b"{}", b'{"seq":1}', b"\xff"])
def test_a_whole_line_that_is_no_record_is_refused(line):
    with pytest.raises(Invalid, match="Line 1"):
        list(Reader([line + b"\n"]))


def test_without_a_path_everything_is_forgotten():
    with Journal(None) as journal:
        journal.append("a")
        asyncio.run(journal.durable())
        assert list(journal.records()) == []


def test_calls_that_wait_together_share_one_flush(path, monkeypatch):
    flushes, go_on = [], Event()

    async def many():
        started, loop = asyncio.Event(), asyncio.get_running_loop()

        def flush(descriptor):
            flushes.append(descriptor)
            loop.call_soon_threadsafe(started.set)
            assert go_on.wait(5)

        monkeypatch.setattr(module.os, "fsync", flush)

        async def one():
            journal.append("a")
            await journal.durable()

        async with asyncio.TaskGroup() as group:
            first = group.create_task(one())
            await started.wait()
            others = [group.create_task(one()) for _ in range(10)]
            await asyncio.sleep(0)
            assert not any(waiting.done() for waiting in (first, *others))
            go_on.set()

    with Journal(path) as journal:
        asyncio.run(many())
    assert len(flushes) == 2


def test_the_disk_is_asked_before_durable_returns(path, monkeypatch):
    flushed = []
    monkeypatch.setattr(module.os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor)))
    with Journal(path) as journal:
        journal.append("a")
        asyncio.run(journal.durable())
        assert [stat.st_size for stat in flushed] == [path.stat().st_size]
        asyncio.run(journal.durable())
        assert len(flushed) == 1

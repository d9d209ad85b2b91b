"""The type carries the proof: a write without a fence is refused before anything runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WRITES = """
from uuid import UUID

from engine_pg.cluster.fence import Fence, FencedTx, Fencing
from engine_pg.db.database import Database
from engine_pg.inventory.rows import Vm
from engine_pg.inventory.writes import update_row


async def fenced(fencing: Fencing, fence: Fence, vm_id: UUID) -> None:
    async with fencing.tx(fence) as tx:
        await update_row(tx, Vm, vm_id, {})


async def unfenced(db: Database, vm_id: UUID) -> None:
    async with db.write() as tx:
        await update_row(tx, Vm, vm_id, {})
"""


def test_the_type_checker_refuses_an_inventory_write_without_a_fence(tmp_path):
    file = tmp_path / "writes.py"
    file.write_text(WRITES)
    run = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    found = json.loads(run.stdout)["generalDiagnostics"]
    refused = [each for each in found if each["rule"] == "reportArgumentType"]
    assert ['"Tx" is not assignable to "FencedTx"' in each["message"] for each in refused] == [True]
    line = refused[0]["range"]["start"]["line"]
    assert WRITES.splitlines()[line - 1].strip() == "async with db.write() as tx:"

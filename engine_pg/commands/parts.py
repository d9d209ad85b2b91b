"""What many commands share: their keys, the rows they read, the events that tell their end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final
from uuid import UUID

from engine_pg.cluster.fence import FencedTx
from engine_pg.cluster.locks import LockKey, Mode, Wanted
from engine_pg.commands.definition import WriteStep
from engine_pg.commands.rows import CommandView
from engine_pg.commands.run import Run
from engine_pg.db.tx import Record
from engine_pg.errors import EngineError
from engine_pg.inventory.rows import Cluster, DataCenter, Host, Vm
from engine_pg.inventory.writes import NewEvent, Row, update_row

RUNNING: Final = frozenset(
    {"wait_for_launch", "powering_up", "up", "paused", "powering_down", "reboot_in_progress"}
)


def exclusive(kind: str, id_: object) -> Wanted:
    """Ask for a key alone."""
    return Wanted(LockKey(kind, str(id_)), Mode.EXCLUSIVE)


def shared(kind: str, id_: object) -> Wanted:
    """Ask for a key together with other shared holders."""
    return Wanted(LockKey(kind, str(id_)), Mode.SHARED)


def subject(kind: str) -> Callable[[CommandView], list[Wanted]]:
    """Lock what the command is about, alone."""
    return lambda command: [exclusive(kind, command.subject_id)]


def named(kind: str) -> Callable[[CommandView], list[Wanted]]:
    """Lock what the command is about and the name that it is to have."""

    def wanted(command: CommandView) -> list[Wanted]:
        keys = [exclusive(kind, command.subject_id)]
        if "name" in command.params:
            keys.append(exclusive(f"{kind}.name", str(command.params["name"]).lower()))
        return keys

    return wanted


def given(kind: type[Row], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that are columns of a kind of row, ids as ids."""
    names = {f.name for f in fields(kind)} - {"version", "created_at", "status"}
    values = {key: value for key, value in params.items() if key in names}
    return {
        key: UUID(value) if key.endswith("_id") and isinstance(value, str) else value
        for key, value in values.items()
    }


def updating(kind: type[Row], title: str) -> WriteStep:
    """Make the step that writes the given columns of the subject."""

    async def write(run: Run, tx: FencedTx) -> Record:
        values = given(kind, run.params)
        if values:
            await update_row(tx, kind, run.subject_id, values)
        return {}

    return WriteStep(name="write", title=title, write=write)


def told(
    code: int, done: str, failed_code: int, failed: str
) -> Callable[[Run, EngineError | None], NewEvent]:
    """Tell the end of a command: `done` and `failed` may use {name}, {user} and {error}."""

    def event(run: Run, error: EngineError | None) -> NewEvent:
        name = str(run.notes.get("name") or run.params.get("name") or run.subject_id)
        words = {"name": name, "user": run.command.user_name, "error": error}
        return NewEvent(
            code=code if error is None else failed_code,
            severity="normal" if error is None else "error",
            description=(done if error is None else failed).format(**words),
            correlation_id=run.command.correlation_id,
            user_name=run.command.user_name,
            command_id=run.command.command_id,
            **run.notes.get("about", {}),
        )

    return event


def note(run: Run, row: DataCenter | Cluster | Host | Vm) -> None:
    """Remember what the command's event is about."""
    run.notes["name"] = row.name
    about: dict[str, Any] = run.notes.setdefault("about", {})
    kind = {DataCenter: "data_center", Cluster: "cluster", Host: "host", Vm: "vm"}[type(row)]
    about[f"{kind}_id"] = getattr(row, f"{kind}_id")
    about[f"{kind}_name"] = row.name


def describing(text: str) -> Callable[[Mapping[str, Any]], str]:
    """Describe a command by a text that may use its parameters; `name` is always there."""
    return lambda params: text.format(**({"name": ""} | dict(params))).strip()

"""Commands for tests of the framework: their steps do nothing but note what happens, and wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from integration.nodes import eventually

from engine_pg.commands.definition import Child, ChildrenStep, Definition, HostStep, WriteStep
from engine_pg.errors import Conflict
from engine_pg.ids import new_id


@dataclass
class Trial:
    """What happened, in order; `gates` hold up whoever comes by."""

    happened: list[str] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)

    def shut(self, *names: str) -> None:
        self.gates |= {name: asyncio.Event() for name in names}

    async def passes(self, name: str) -> None:
        self.happened.append(name)
        if (gate := self.gates.get(name)) is not None:
            await gate.wait()

    async def reached(self, name: str) -> None:
        async def there() -> bool:
            return name in self.happened

        await eventually(there)

    def write(self, name: str, **more: Any) -> WriteStep:
        async def prepare(_run):
            await self.passes(f"{name} prepared")

        async def write(_run, _tx):
            await self.passes(name)
            return {}

        async def undo(_run, _tx, _outcome):
            await self.passes(f"{name} undone")

        return WriteStep(
            name=name,
            title=name.title(),
            **{"prepare": prepare, "write": write, "undo": undo} | more,
        )

    def host(self, name: str, **more: Any) -> HostStep:
        """Make a step whose effect is that it is noted; a look finds it there."""

        async def plan(_run, _tx):
            return {"host_id": str(new_id())}

        async def act(run, _intent):
            self.happened.append(name)
            await self.passes(f"{name} acts")
            if "half" in self.gates:
                await run.progress(0.5, "half of it")
                await self.passes("half")
            return {}

        async def look(_run, _intent):
            return {"found": True} if name in self.happened else None

        async def undo(_run, _intent):
            await self.passes(f"{name} undone")

        async def record(_run, _tx, _intent, _outcome):
            pass

        return HostStep(
            name=name,
            title=name.title(),
            **{"plan": plan, "act": act, "look": look, "undo": undo, "record": record} | more,
        )

    def parent(self, keys: tuple[str, ...], **more: Any) -> ChildrenStep:
        """Make a step whose children are commands `child`; each fails whose key says so."""

        async def plan(_run, _tx):
            return [
                Child(key=key, name="child", subject_id=new_id(), params={"key": key})
                for key in keys
            ]

        async def judge(_run, _tx, children):
            self.happened.append("judged")
            failed = sum(child.state != "succeeded" for child in children)
            if failed:
                raise Conflict(f"{failed} of {len(children)} children failed")
            return {"children": len(children)}

        return ChildrenStep(name="family", title="Family", plan=plan, judge=judge, **more)

    def definition(self, name: str, *steps: Any, **more: Any) -> dict[str, Definition]:
        given: dict[str, Any] = {
            "subject_kind": "vm",
            "describe": lambda _: f"Trial {name}",
            "locks": lambda _: [],
            "event": lambda _run, _error: None,
        }
        return {name: Definition(name=name, steps=steps, **given | more)}

    def child(self) -> dict[str, Definition]:
        async def write(run, _tx):
            await self.passes(f"child {run.params['key']}")
            if run.params["key"].startswith("failing"):
                raise Conflict("it fails")
            return {}

        async def prepare(run):
            await self.passes(f"child {run.params['key']} prepared")

        step = WriteStep(name="do", title="Do", write=write, prepare=prepare)
        return self.definition("child", step)


def refusing(text: str) -> Callable[..., Any]:
    async def act(*_: Any) -> None:
        raise Conflict(text)

    return act

"""The witness: acts under locks happen here, in a process that knows nothing of the database.

It works like a host that checks tokens: a call under a shared grant is refused below the highest
exclusive token of the key, one under an exclusive grant below the highest of any. It carries a call
out even when the caller dies meanwhile, and writes down what it did, when, for whom.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from chaos.history import History
from engine_pg.clock import boottime
from engine_pg.errors import Unavailable
from engine_pg.supervisor import uninterrupted

BOUND_S = 10.0


class Gate:
    """The highest tokens that were shown, by key."""

    def __init__(self) -> None:
        self._exclusive: dict[str, int] = {}
        self._any: dict[str, int] = {}

    def admits(self, key: str, mode: str, token: int) -> bool:
        """Say whether the call may act, and remember its token."""
        highest = self._any if mode == "exclusive" else self._exclusive
        if token < highest.get(key, 0):
            return False
        self._any[key] = max(token, self._any.get(key, 0))
        if mode == "exclusive":
            self._exclusive[key] = max(token, self._exclusive.get(key, 0))
        return True


class Witness:
    """A client's connection to the witness."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def act(self, **call: Any) -> bool:
        """Have a call carried out, to its end whatever befalls us; False: it was refused."""
        return await uninterrupted(self._act(call), BOUND_S)

    async def _act(self, call: dict[str, Any]) -> bool:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(self._path)
        reader, writer = self._streams
        writer.write(json.dumps(call).encode() + b"\n")
        answer = await reader.readline()
        if not answer:
            raise Unavailable("the witness is gone")
        return json.loads(answer)["done"]

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def serve(path: str, history: History) -> None:
    gate = Gate()

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            call = json.loads(line)
            at = boottime()
            done = gate.admits(call["key"], call["mode"], call["token"])
            history.note("act", at=at, until=at + call["work_s"], done=done, **call)
            if done:
                await asyncio.sleep(call["work_s"])
            writer.write(json.dumps({"done": done}).encode() + b"\n")
        writer.close()

    server = await asyncio.start_unix_server(attend, path)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], History(Path(sys.argv[2]), "witness")))

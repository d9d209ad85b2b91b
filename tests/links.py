"""A TCP link of our own between two programs, to be cut, frozen and healed by a test.

No pytest here: the chaos runs use it as well. It runs on a thread of its own, so that what a test
does to its event loop does nothing to the link.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Literal

_CHUNK = 65536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER without time: closing resets
State = Literal["whole", "frozen", "cut"]
Way = Literal["there", "back"]  # to the target, and its replies


class Link:
    """Forwards connections to a port of this machine for as long as it is whole.

    `reset` breaks every connection with an RST, new ones pass. `freeze` lets nothing through, both
    ways or one, and tells nobody (connections are accepted, bytes acknowledged, as by a frozen
    machine); `cut` resets all and refuses new ones; `heal` ends both. `swallow` freezes for ever
    the connections that stand, as a firewall does that forgot them; new ones pass.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.state: State = "whole"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._open: dict[asyncio.Task[None], asyncio.Event] = {}  # set: it is swallowed
        self._flowing: dict[Way, asyncio.Event] = {
            "there": asyncio.Event(),
            "back": asyncio.Event(),
        }
        self._server: asyncio.Server | None = None
        self.port = 0
        self._do(self._become("whole"))

    def reset(self) -> None:
        """Break every connection; new ones pass."""
        self._do(self._reset())

    def swallow(self) -> None:
        """Let nothing through any more on the connections that stand; new ones pass."""
        self._do(self._swallow())

    def freeze(self, *ways: Way) -> None:
        """Let nothing through any more (in one direction), without telling anybody."""
        self._do(self._become("frozen", *ways))

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        self._do(self._become("cut"))

    def heal(self) -> None:
        """Let everything through; what a freeze held back goes on."""
        self._do(self._become("whole"))

    def close(self) -> None:
        """End the link and its thread."""
        self._do(self._become("cut"))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _become(self, state: State, *ways: Way) -> None:
        self.state = state
        for way, flowing in self._flowing.items():
            if state == "frozen" and way in (ways or self._flowing):
                flowing.clear()
            else:
                flowing.set()
        if state == "cut":
            if self._server is not None:
                self._server.close()
                self._server = None
            await self._reset()
        elif self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _reset(self) -> None:
        ended = list(self._open)
        for each in ended:
            each.cancel()
        if ended:
            await asyncio.wait(ended)

    async def _swallow(self) -> None:
        for swallowed in self._open.values():
            swallowed.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        current = asyncio.current_task()
        assert current is not None
        swallowed = self._open[current] = asyncio.Event()
        writers = [writer]
        try:
            await self._flowing["there"].wait()
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", self.target)
            writers.append(onward)
            async with asyncio.TaskGroup() as group:
                pumps = [
                    group.create_task(self._pump(reader, onward, "there", swallowed)),
                    group.create_task(self._pump(onward_reader, writer, "back", swallowed)),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:  # whoever closes closes the other side too
                    pump.cancel()
        except asyncio.CancelledError:
            for each in writers:
                sock: socket.socket = each.get_extra_info("socket")
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except (OSError, ExceptionGroup):
            pass  # one end is gone: so is the other, below
        finally:
            for each in writers:
                each.transport.abort()
            del self._open[current]

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: Way,
        swallowed: asyncio.Event,
    ) -> None:
        while chunk := await reader.read(_CHUNK):
            await self._flowing[way].wait()
            if not swallowed.is_set():
                writer.write(chunk)
                await writer.drain()

"""A host that does what a test tells it, mostly what no host should."""

import asyncio
import json
from uuid import UUID, uuid4

from engine_pg.hosts.driver import OpCtx
from engine_pg.hosts.vdsm.client import VdsmDriver
from engine_pg.hosts.vdsm.frames import Frame, Parser, encode

HOST_UUID = UUID("11111111-2222-3333-4444-555555555555")
VM_ID = UUID("aaaaaaaa-0000-0000-0000-000000000001")
CAPABILITIES = {
    "uuid": str(HOST_UUID),
    "boot_uuid": "boot-1",
    "cpuCores": "8",
    "cpuThreads": "16",
    "cpuSockets": "2",
    "cpuModel": "Abacus",
    "memSize": "2048",
    "software_version": "4.5.6",
}


def ctx(**changes) -> OpCtx:
    return OpCtx(**{"op_id": uuid4(), "timeout_s": 5.0, **changes})


def run(main):
    """Run a coroutine; whatever the loop complains about fails the test."""
    complaints = []

    async def body():
        asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
        try:
            async with asyncio.timeout(20):
                return await main()
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if left:  # the loop's own, of a connection just accepted; they end by themselves
                _, left = await asyncio.wait(left, timeout=1)
            assert not left, left

    try:
        return asyncio.run(body())
    finally:
        assert not complaints, complaints


class ScriptedHost:
    """`answers[method]` is given the request and returns the answer's fields, or None for none."""

    def __init__(self, *, heartbeat="0,0", greeting=None, tls=None):
        self._tls = tls
        self.answers = {
            "Host.getCapabilities": lambda _: {"result": CAPABILITIES},
            "Host.ping2": lambda _: {"result": True},
        }
        self.greeting = greeting or encode(
            Frame("CONNECTED", {"version": "1.2", "heart-beat": heartbeat})
        )
        self.requests = []
        self.frames = []
        self.heard = bytearray()
        self.connections = 0
        self._awaited = []
        self._transports = []
        self._speaking = None  # the connection that was heard last
        self._queue = "unset"

    async def __aenter__(self):
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Side(self), "127.0.0.1", 0, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    def driver(self, **knobs) -> VdsmDriver:
        return VdsmDriver("127.0.0.1", self.port, **knobs)

    async def left_alone(self):
        """Wait until every connection has been closed by the other side."""
        await self.until(lambda: self.connections and not self._transports)

    def cut(self):
        for transport in list(self._transports):
            transport.abort()

    def deafen(self):
        for transport in self._transports:
            transport.pause_reading()

    def raw(self, data: bytes):
        self._speaking.write(data)

    def message(self, content, destination=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.raw(encode(Frame("MESSAGE", {"destination": destination or self._queue}, body)))

    def reply(self, request, **fields):
        self.message({"jsonrpc": "2.0", "id": request["id"], **fields})

    def event(self, method, params):
        self.message({"jsonrpc": "2.0", "method": method, "params": params}, "jms.queue.events")

    async def request(self, method):
        """Wait for a request of this method and take it out of the list."""

        def come():
            return [request for request in self.requests if request["method"] == method]

        await self.until(come)
        request = come()[0]
        self.requests.remove(request)
        return request

    async def until(self, condition):
        """Wait until the condition holds after some bytes have arrived, or holds already."""
        met = asyncio.get_running_loop().create_future()
        self._awaited.append((condition, met))
        self.wake()
        await asyncio.wait_for(met, 5)

    def wake(self):
        for condition, met in self._awaited:
            if not met.done() and condition():
                met.set_result(None)

    def take(self, frame: Frame, transport):
        self.frames.append(frame)
        self._speaking = transport
        if frame.command == "CONNECT":
            self.raw(self.greeting)
        elif frame.command == "SEND":
            self._queue = frame.headers["reply-to"]
            request = json.loads(frame.body)
            fields = self.answers.get(request["method"], lambda _: None)(request)
            if fields is not None:
                self.reply(request, **fields)
            self.requests.append(request)


class _Side(asyncio.Protocol):
    def __init__(self, host):
        self.host = host
        self.parser = Parser()

    def connection_made(self, transport):
        self.transport = transport
        self.host.connections += 1
        self.host._transports.append(transport)

    def connection_lost(self, _):
        self.host._transports.remove(self.transport)
        self.host.wake()

    def data_received(self, data):
        self.host.heard += data
        self.parser.feed(data)
        while (frame := self.parser.next_frame()) is not None:
            self.host.take(frame, self.transport)
        self.host.wake()

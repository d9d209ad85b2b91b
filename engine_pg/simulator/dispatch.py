"""JSON-RPC as VDSM serves it, with the traps that a client must know.

- The map from request id to reply destination is one for all clients: of two calls with one id, one
  gets the other's answer and the second answer goes to the default destination.
- A notification (a request without id) ends the dispatching: the host is deaf until it is healed.
- A batch of two or more is run and never answered.
- What cannot be parsed is answered with `id: null`, to the default destination only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

from engine_pg.clock import boottime
from engine_pg.hosts.vdsm.constants import ENGINE_FENCE, RESPONSES, ErrorCode
from engine_pg.simulator.answers import CallFailed
from engine_pg.simulator.broker import Broker
from engine_pg.simulator.connection import Incoming
from engine_pg.simulator.verbs import VERBS, vm_of
from engine_pg.simulator.workers import Answer, Call, Workers

MAX_DEPTH: Final = 100

Fields = dict[str, Any]
Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Dispatcher:
    """Turns the messages of a host's request queues into calls, and their outcomes into replies."""

    def __init__(
        self, broker: Broker, workers: Workers, record: Callable[..., int], spawn: Spawn
    ) -> None:
        self._broker = broker
        self._workers = workers
        self._record = record
        self._spawn = spawn
        self._reply_to: dict[str, str | None] = {}
        self._deaf = False

    def reset(self) -> None:
        """Start anew, as after a reboot."""
        self._reply_to.clear()
        self.listen()

    def listen(self) -> None:
        """Hear again."""
        self._deaf = False

    def receive(self, incoming: Incoming) -> None:
        """Take one message."""
        if self._deaf:
            return
        try:
            requests = _requests(incoming.body)
        except CallFailed as failed:
            self._broker.publish(RESPONSES, _encode(None, failed))
            return
        for request in requests:
            if request.get("id") is None:
                self._deaf = True
                self._record("dispatch_ended", connection=incoming.origin.connection)
                return
            self._reply_to[_map_key(request["id"])] = incoming.reply_to
        for request in requests:
            self._start(incoming, request, muted=len(requests) > 1)

    def _start(self, incoming: Incoming, request: Fields, *, muted: bool) -> None:
        def answer(outcome: Answer) -> None:
            if not muted:
                self._reply(request["id"], outcome)

        try:
            call = _call(incoming, request)
        except CallFailed as failed:
            self._record(
                "call_rejected",
                code=failed.code,
                method=str(request["method"])[:100],
                connection=incoming.origin.connection,
                peer=incoming.origin.peer,
            )
            answer(failed)
        else:
            self._spawn(self._workers.carry(call, answer))

    def _reply(self, request_id: object, outcome: Answer) -> None:
        destination = self._reply_to.pop(_map_key(request_id), RESPONSES)
        if destination is not None:
            self._broker.publish(destination, _encode(request_id, outcome))


def _requests(body: bytes) -> list[Fields]:
    try:
        raw: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CallFailed(ErrorCode.PARSE, "Parse error") from error
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper_than(MAX_DEPTH, raw):
        raise CallFailed(ErrorCode.PARSE, "Parse error: nested too deeply")
    items = cast("list[object]", raw) if isinstance(raw, list) else [raw]
    if not items:
        raise CallFailed(ErrorCode.INVALID_REQUEST, "Invalid request: request batch is empty")
    return [_request(item) for item in items]


def _deeper_than(levels: int, raw: object) -> bool:
    """Tell whether walking through a value would strain the stack."""
    level = [raw]
    for _ in range(levels):
        deeper: list[object] = []
        for value in level:
            if isinstance(value, dict):
                deeper.extend(cast("Fields", value).values())
            elif isinstance(value, list):
                deeper.extend(cast("list[object]", value))
        level = deeper
    return bool(level)


def _request(raw: object) -> Fields:
    if not isinstance(raw, dict):
        raise CallFailed(ErrorCode.INVALID_REQUEST, "Invalid request: no object")
    request = cast("Fields", raw)
    if request.get("jsonrpc") != "2.0":
        raise CallFailed(ErrorCode.INVALID_REQUEST, "Invalid request: wrong protocol version")
    if not isinstance(request.get("method"), str):
        raise CallFailed(ErrorCode.INVALID_REQUEST, "Invalid request: missing method")
    if isinstance(request.get("id"), list | dict):
        raise CallFailed(ErrorCode.INVALID_REQUEST, "Invalid request: wrong id type")
    if not isinstance(request.get("params", []), list | dict):
        raise CallFailed(ErrorCode.INVALID_REQUEST, "Invalid request: wrong params type")
    return request


def _call(incoming: Incoming, request: Fields) -> Call:
    method: str = request["method"]
    verb = VERBS.get(method)
    if verb is None:
        raise CallFailed(
            ErrorCode.NO_SUCH_METHOD, f"The method does not exist or is not available: {method}"
        )
    params: Fields | list[Any] = request.get("params", [])
    arguments = verb.arguments(params)
    return Call(
        request_id=request["id"],
        method=method,
        verb=verb,
        arguments=arguments,
        fence=params.get(ENGINE_FENCE) if isinstance(params, dict) else None,
        vm_id=vm_of(method, arguments),
        incoming=incoming,
        received=boottime(),
    )


def _map_key(request_id: object) -> str:
    return json.dumps(request_id)


def _encode(request_id: object, outcome: Answer) -> bytes:
    reply: Fields = {"jsonrpc": "2.0", "id": request_id}
    if isinstance(outcome, CallFailed):
        reply["error"] = {"code": outcome.code, "message": str(outcome)}
    else:
        reply["result"] = outcome
    return json.dumps(reply).encode()

"""Clients of one node each, which ask it all the time and take no other node's word for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

import httpx

from engine_pg.clock import boottime
from engine_pg.demo.target import NodeProcess, Target
from engine_pg.ids import new_id
from engine_pg.supervisor import Background

_VMS: Final = "/ovirt-engine/api/vms"
_READ_PACE_S: Final = 0.05
_WRITE_PACE_S: Final = 0.25
_BOUND_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and its answer; status 0: there was none."""

    node: str
    kind: Literal["read", "write"]
    began: float
    ended: float
    status: int
    staleness_s: float | None = None

    @property
    def good(self) -> bool:
        """Whether it was answered as one would wish."""
        return self.status == HTTPStatus.OK

    @property
    def refused(self) -> bool:
        """Whether a write was refused, because the database is away."""
        return self.kind == "write" and self.status == HTTPStatus.SERVICE_UNAVAILABLE


class Askers:
    """All that was asked and answered."""

    def __init__(self, target: Target) -> None:
        self.asked: list[Asked] = []
        self._target = target
        self._token = ""

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[None]:
        """Read from every node beside a block."""
        async with self._target.client() as client:
            self._token = await client.token()
        async with self._http() as http, Background() as background:
            for node in self._target.nodes:
                background.start(self._read(http, node), name=f"reads of {node.name}")
            yield

    @asynccontextmanager
    async def writing(self, name: str) -> AsyncGenerator[None]:
        """Try to create VMs at one node beside a block."""
        [node] = [node for node in self._target.nodes if node.name == name]
        async with self._http() as http, Background() as background:
            background.start(self._write(http, node), name=f"writes to {name}")
            yield

    def _http(self) -> httpx.AsyncClient:
        given = {"Authorization": f"Bearer {self._token}", "Accept": "application/xml"}
        return httpx.AsyncClient(trust_env=False, timeout=_BOUND_S, headers=given)

    async def _read(self, http: httpx.AsyncClient, node: NodeProcess) -> None:
        while True:
            began = boottime()
            try:
                answer = await http.get(node.url + _VMS)
            except httpx.TransportError:
                self.asked.append(Asked(node.name, "read", began, boottime(), 0))
            else:
                told = answer.headers.get("Engine-Staleness")
                staleness_s = None if told is None else float(told)
                ended = boottime()
                status = answer.status_code
                self.asked.append(Asked(node.name, "read", began, ended, status, staleness_s))
            await asyncio.sleep(_READ_PACE_S)

    async def _write(self, http: httpx.AsyncClient, node: NodeProcess) -> None:
        while True:
            name, began = f"lab-{new_id()}", boottime()
            body = (
                f"<vm><name>{name}</name><cluster><name>Default</name></cluster>"
                "<template><name>Blank</name></template></vm>"
            )
            xml = {"Content-Type": "application/xml", "Idempotency-Key": name}
            try:
                answer = await http.post(node.url + _VMS, content=body, headers=xml)
                status = answer.status_code
            except httpx.TransportError:
                status = 0
            self.asked.append(Asked(node.name, "write", began, boottime(), status))
            await asyncio.sleep(_WRITE_PACE_S)

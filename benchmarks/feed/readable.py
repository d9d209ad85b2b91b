"""A node's reads in a process of their own, three ways at once; its argument is the database.

    ours       as they are: a barrier, a view, fragments
    unbarred   the same without the barrier
    queried    what they replace: each request asks for its token and its rows, and encodes them

It says one line of JSON when it is ready, and one more for each line that it is given.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from typing import Any, Final

import uvicorn
import uvloop
from sqlalchemy import func
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from typing_extensions import override

from engine_pg.api.accounts.tokens import hashed
from engine_pg.api.app import create_app
from engine_pg.api.changes.tail import Tail
from engine_pg.api.replicated import TABLES
from engine_pg.api.services import Services
from engine_pg.api.types.vm import VM
from engine_pg.api.wire import xml
from engine_pg.clock import boottime
from engine_pg.cluster.feed import Feed
from engine_pg.cluster.topics import CHANGES
from engine_pg.commands.registry import REGISTRY
from engine_pg.commands.service import Commands
from engine_pg.configuration.live import LiveSettings
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.inventory import reads, tables
from engine_pg.inventory.numbering import Numbering
from engine_pg.inventory.rows import Vm
from engine_pg.replica.reading import Reading, Reads
from engine_pg.replica.replica import Replica
from engine_pg.supervisor import Background

WHO: Final = """
select u.user_id, u.name, t.last_used_at < now() - interval '1 min' as unseen
  from api_token t join app_user u using (user_id)
 where t.token_hash = %(token_hash)s and t.expires_at > now() and u.enabled
"""
_MIB: Final = 1 << 20
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Unbarred(Reads):
    """Reads that take the view as it is."""

    @override
    async def take(self, *, old_ok: bool = True) -> Reading:
        """Return the view as it is."""
        view = self.replica.view
        assert view is not None
        return Reading(view)


def queried(db: Database) -> Route:
    """Return the route that asks the database and encodes, for each request."""

    async def endpoint(request: Request) -> Response:
        token = request.headers["authorization"].partition(" ")[2]
        async with db.read() as tx:
            who = await tx.first(WHO, {"token_hash": hashed(token)})
        assert who is not None
        async with db.read() as tx:
            order = [func.lower(tables.vm.c.name)]
            limit = int(request.query_params["max"])
            rows = await reads.listed(tx, Vm, order=order, limit=limit)
        documents: list[dict[str, Any]] = []
        for number, row in enumerate(rows, 1):
            documents.append(VM.document(row, "/ovirt-engine/api", "vms"))
            if number % 100 == 0:
                await asyncio.sleep(0)
        body = await asyncio.to_thread(xml.written, "vms", {"vm": documents})
        return Response(body, media_type=xml.MEDIA_TYPE)

    return Route("/queried/vms", endpoint)


def resident_mib() -> float:
    """Return how much memory this process has."""
    with open(f"/proc/{os.getpid()}/statm") as statm:
        return round(int(statm.read().split()[1]) * _PAGE / _MIB, 1)


async def serve(url: str) -> None:
    """Serve until nobody is there to ask."""
    bells = Doorbells(url)
    database = Database(url, pool_max=12, on_commit=lambda: bells.ring_soon(CHANGES))
    patient = Database(url, pool_max=12, away_s=60.0)  # at 32 clients its requests wait for it
    async with database as db, patient, Background() as background:
        background.start(bells.run(), name="doorbells")
        replica = Replica(Feed(db, bells), bells, TABLES)
        empty_mib, began_at = resident_mib(), boottime()
        background.start(replica.run(), name="replica")
        await replica.passed()
        copied_s = boottime() - began_at
        ports: dict[str, int] = {}
        live = LiveSettings()
        for name, kind in (("ours", Reads), ("unbarred", Unbarred)):
            services = Services(
                db=db,
                commands=Commands(db, bells, REGISTRY),
                tail=Tail(Feed(db, bells)),
                reads=kind(replica, live),
                numbering=Numbering(db, bells),
                settings=live,
            )
            app = create_app(services)
            app.router.routes.insert(0, queried(patient))
            ports[name] = _listen(background, app)
        said: dict[str, Any] = {"ports": ports, "copied_s": round(copied_s, 3)}
        said |= {"empty_mib": empty_mib, "copied_mib": resident_mib()}
        print(json.dumps(said), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            counts = {"mib": resident_mib(), "barriers": replica.figures.barriers}
            print(json.dumps(counts), flush=True)


def _listen(background: Background, app: Starlette) -> int:
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # pyright: ignore[reportAttributeAccessIssue]  # an older name
    background.start(server.serve(sockets=[listening]), name="api")
    port: int = listening.getsockname()[1]
    return port


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))

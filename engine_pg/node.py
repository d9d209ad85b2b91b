"""One node: every service in one visible list. The composition root.

The API outlives the member: a node whose member was ended joins again as a new one, under a new id,
and serves on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Final

import engine_pg
from engine_pg.api.app import create_app
from engine_pg.api.changes.tail import Tail
from engine_pg.api.replicated import TABLES
from engine_pg.api.server import ApiServer, server_of
from engine_pg.api.services import Services
from engine_pg.cluster.feed import Feed, FeedRetention
from engine_pg.cluster.feed.retention import Keep
from engine_pg.cluster.lives import live, live_until_left
from engine_pg.cluster.measures import Measures, Standing
from engine_pg.cluster.membership import Lease, Membership
from engine_pg.cluster.ops import Identity
from engine_pg.cluster.topics import CHANGES
from engine_pg.cluster.waits import Request as Waiting
from engine_pg.commands.registry import REGISTRY
from engine_pg.commands.run import Patience
from engine_pg.commands.runner import Runner
from engine_pg.commands.service import Commands
from engine_pg.configuration.live import LiveSettings
from engine_pg.db import migrate
from engine_pg.db.database import Database
from engine_pg.db.listener import Doorbells
from engine_pg.db.revision import awaited_schema
from engine_pg.db.urls import libpq_url
from engine_pg.errors import EngineError
from engine_pg.formation.commits import CommitWatch
from engine_pg.hosts.connections import HostConnections
from engine_pg.hosts.driver import HostDriver
from engine_pg.hosts.vdsm.client import VdsmDriver
from engine_pg.ids import new_id
from engine_pg.inventory.numbering import Numbering
from engine_pg.names import Names
from engine_pg.replica.reading import Reads
from engine_pg.replica.replica import Replica
from engine_pg.schedules.firing import Schedules
from engine_pg.schedules.known import KNOWN
from engine_pg.schedules.works import Works
from engine_pg.settings import Settings
from engine_pg.singletons import adoption, formation_watch, lock_watch, retention
from engine_pg.singletons.monitor import PARTITIONS, Monitor, partition_name
from engine_pg.supervisor import Background
from engine_pg.worker import work

log = logging.getLogger(__name__)

_DRAIN_S: Final = 8.0


class Node:
    """One engine node, from start to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        url = libpq_url(settings.database_url.get_secret_value())
        self._measures = Measures()
        self._bells = Doorbells(url, on_deaf=self._measures.deafened)
        self._db = Database(
            url,
            name=f"engine_pg {settings.node}",
            pool_min=settings.pool_min,
            pool_max=settings.pool_max,
            bound_s=settings.statement_bound_s,
            idle_in_transaction_s=settings.lease_ttl_s * 0.8,
            on_commit=lambda: self._bells.ring_soon(CHANGES),
        )
        self._commands = Commands(self._db, self._bells, REGISTRY)
        self._names = Names()
        self._live = LiveSettings()
        self._tail = Tail(self._feed("streams"), leaving=self._leaving)
        self._numbering = Numbering(self._db, self._bells)
        self._schedules = Schedules(self._db, self._bells, KNOWN, node=settings.node)
        self._replica = Replica(self._feed("replica"), self._bells, TABLES)
        self._reads = Reads(self._replica, self._live)
        monitor = settings.monitor_url
        self._monitor_url = None if monitor is None else monitor.get_secret_value()
        self._hanging = CommitWatch(url, self._monitor_url, self._renewal_is_overdue)
        self._membership: Membership | None = None
        self._refused = ""
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then leave in order."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        schema = await awaited_schema(self._db.url, self._stop)
        if schema is None:  # told to stop before there was anything to serve from
            return
        schema.check(migrate.needed(), migrate.known())
        server = self._server()
        async with self._db, Background() as background:
            background.start(self._bells.run(), name="doorbells")
            settings = self._live.follow(self._feed("settings"), self._bells)
            background.start(settings, name="settings")
            background.start(self._replica.run(), name="replica")
            background.start(self._numbering.run(), name="event numbers")
            background.start(self._schedules.run(), name="schedules")
            known = background.start(self._live.known(), name="first settings")
            stop = background.start(self._stop.wait(), name="stop")
            await asyncio.wait([known, stop], return_when=asyncio.FIRST_COMPLETED)
            background.start(self._commands.run(), name="command watch")
            background.start(self._hanging.run(), name="commit watch")
            background.start(self._tail.run(), name="streams of changes")
            member = background.start(live(self._one_life, self._stop), name="member")
            api = background.start(self._serve(server), name="api")
            await self._stop.wait()
            log.info("stopping")
            await asyncio.wait([member], timeout=_DRAIN_S)  # requests that wait are answered
            server.should_exit = True
            await asyncio.wait([api], timeout=_DRAIN_S)

    async def _serve(self, server: ApiServer) -> None:
        await server.serve()
        if not self._stop.is_set():
            raise EngineError("the API could not be served; is its port taken?")

    def reasons(self) -> list[str]:
        """Return why the node is not ready; nothing: it is, as far as it is not degraded."""
        if self._stop.is_set():
            return ["the node stops"]
        if self._replica.view is None:
            return ["the node has not read the inventory yet"]
        if self._membership is not None and self._membership.draining:
            return ["draining"]
        lost = self._lost()
        if self._membership is None and not lost:
            return [f"the node is not a member{self._refused}"]
        return [] if self._reads.tolerable else lost

    def degradations(self) -> list[str]:
        """Return why the node can answer reads only; nothing: it can do everything."""
        return self._lost() if self._reads.tolerable else []

    def _lost(self) -> list[str]:
        if self._hanging.hang is not None:
            return [self._hanging.hang.sentence]
        if self._replica.away:
            return ["no writable PostgreSQL answers"]
        if self._membership is not None and not self._membership.session.trusted:
            return ["the member's lease is not renewed: no writable PostgreSQL answers"]
        return []

    def _renewal_is_overdue(self) -> bool:
        if self._membership is None:
            return True
        known = self._settings
        next_at_s = known.lease_ttl_s - known.lease_margin_s - 2 * known.heartbeat_s
        return self._membership.standing.trusted_s < max(0.0, next_at_s)

    def _feed(self, what_for: str) -> Feed:
        return Feed(self._db, self._bells, name=f"{self._settings.node} {what_for}")

    def _leaving(self) -> str:
        if self._stop.is_set():
            return "the node stops"
        draining = self._membership is not None and self._membership.draining
        return "the node drains" if draining else ""

    def _standing(self) -> Standing | None:
        return None if self._membership is None else self._membership.standing

    def _waiting(self) -> Sequence[Waiting]:
        return () if self._membership is None else self._membership.locks.waiting

    async def _one_life(self) -> None:
        settings = self._settings
        async with HostConnections(self._driver) as hosts:
            membership = self._new_member(hosts)
            try:
                await membership.join()
            except EngineError as error:
                self._refused = f": {error}"
                raise
            self._membership, self._refused = membership, ""
            runner = Runner(
                membership,
                self._db,
                hosts,
                self._bells,
                REGISTRY,
                patience=self._patience,
                limit=lambda: self._live.now.adoption_limit,
            )
            working = work(
                self._db,
                membership,
                runner,
                self._bells,
                concurrency=settings.worker_concurrency,
                urgent_concurrency=settings.worker_urgent_concurrency,
            )
            try:
                async with asyncio.TaskGroup() as group:
                    until_left = live_until_left(membership, self._stop)
                    living = group.create_task(until_left, name="membership")
                    watching = group.create_task(runner.watch(), name="command halts")
                    worker = group.create_task(working, name="worker")
                    works = group.create_task(self._works(membership).serve(), name="works")
                    await self._stop.wait()
                    worker.cancel()
                    works.cancel()
                    await asyncio.wait([worker, works])
                    await membership.leave()
                    living.cancel()
                    watching.cancel()
            finally:
                self._membership = None

    def _works(self, membership: Membership) -> Works:
        bodies = retention.Retention(self._db, self._live).works()
        return Works(
            self._db,
            self._bells,
            bodies,
            member_id=membership.identity.member_id,
            node=self._settings.node,
            accepting=lambda: not membership.draining,
        )

    def _driver(self, address: str, port: int) -> HostDriver:
        timeout_s = self._live.now.host_call_timeout_s
        return VdsmDriver(address, port, names=self._names, connect_timeout_s=timeout_s)

    def _keep(self) -> Keep:
        now = self._live.now
        age_s, most_s = now.change_retention_hours * 3600, now.change_retention_limit_hours * 3600
        return Keep(age_s, max(age_s, most_s), now.change_retention_limit_rows)

    def _patience(self) -> Patience:
        now = self._live.now
        return Patience(now.host_call_timeout_s, now.host_inflight_bound_s)

    def _new_member(self, hosts: HostConnections) -> Membership:
        settings = self._settings
        identity = Identity(new_id(), settings.node, settings.advertised_url, engine_pg.__version__)
        lease = Lease(settings.lease_ttl_s, settings.lease_margin_s, settings.heartbeat_s)
        membership = Membership(
            self._db,
            identity,
            bells=self._bells,
            lease=lease,
            weight=settings.leader_weight,
            measures=self._measures,
        )
        membership.locks.limit = settings.lock_limit
        fencing, lead = membership.fencing, membership.leaders.register
        copied = self._replica.copied
        monitor = Monitor(self._db, fencing, hosts, self._commands, self._live, copied)
        lead(adoption.NAME, adoption.Adoption(fencing, self._bells).run)
        lead(retention.FEED, FeedRetention(self._db, self._keep).run)
        lead(lock_watch.NAME, lock_watch.LockWatch(self._db, fencing).run)
        watch = formation_watch.FormationWatch(
            self._db, fencing, self._monitor_url, lambda: self._hanging.past
        )
        lead(formation_watch.NAME, watch.run)
        for number in range(PARTITIONS):
            lead(partition_name(number), monitor.run)
        return membership

    def _server(self) -> ApiServer:
        app = create_app(
            Services(
                db=self._db,
                commands=self._commands,
                settings=self._live,
                tail=self._tail,
                reads=self._reads,
                numbering=self._numbering,
                ready=self.reasons,
                degraded=self.degradations,
                leaving=self._leaving,
                measures=self._measures,
                standing=self._standing,
                waiting=self._waiting,
                hang=lambda: self._hanging.hang,
            )
        )
        return server_of(app, self._settings)

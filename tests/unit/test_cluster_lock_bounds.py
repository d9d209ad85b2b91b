"""How long a request for locks may take: one bound, whatever it waits for."""

from __future__ import annotations

from contextlib import closing

import pytest
from unit.simulated_database import SimulatedDatabase, SimulatedSession
from unit.virtual import VirtualClock, VirtualLoop

from engine_pg.cluster.locks import LockKey, Locks, Wanted
from engine_pg.cluster.ops import Identity, Owners
from engine_pg.errors import DatabaseAway, LeaseLost
from engine_pg.ids import new_id

KEY = Wanted(LockKey("test", "bound"))
TTL_S = 2.0
NEVER = 1000.0


@pytest.mark.parametrize(
    ("wait_s", "lease_back_s", "told_s", "error"),
    [
        (5.0, 0.125, 5.0 + TTL_S, DatabaseAway),
        (5.0, 4.0, 5.0 + TTL_S, DatabaseAway),
        (5.0, NEVER, 5.0, LeaseLost),
        (0.5, NEVER, 0.5, LeaseLost),
        (0.0, 1.5, 2 * TTL_S, DatabaseAway),
        (0.0, NEVER, TTL_S, LeaseLost),
    ],
)
def test_the_wait_for_the_lease_and_for_the_locks_is_one(wait_s, lease_back_s, told_s, error):
    clock = VirtualClock()
    session = SimulatedSession(  # it carries nothing: no answer comes
        SimulatedDatabase(),
        clock=clock,
        identity=Identity(new_id(), "node"),
        ttl_s=TTL_S,
        margin_s=0.2,
        heartbeat_s=0.4,
        owners=Owners(),
    )
    since = clock.now
    with closing(VirtualLoop(clock)) as loop:
        asking = loop.create_task(Locks(session, clock=clock).acquire(KEY, wait_s=wait_s))
        loop.settle()
        while not asking.done():
            assert clock.now < since + 20
            loop.sleep(0.125)
            if clock.now == since + lease_back_s:
                loop.call(session.trust_from, clock.now)
        assert isinstance(asking.exception(), error)
    assert clock.now - since == pytest.approx(told_s, abs=0.2)

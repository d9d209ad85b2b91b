"""The protocol: membership, locks, leaders and adoption through one PostgreSQL, for any service.

    member ──renews──▶ lease            one lock session: one connection, one batch at a time
      ├─ locks ─────▶ lock_grant        (key, mode, fencing token, command), durable
      ├─ waits ─────▶ lock_ticket       first come, first served, on whichever node
      ├─ leads ─────▶ leader            (name, term)
      └─ claims ────▶ command           (attempt), adopted together with its grants

        alive          past trusted_until          back in time            too late
    ──renewals──▶│ pauses: starts nothing │──resumes: same tokens──▶ │ or: it was ended,
                 │ new, keeps everything  │  same terms, goes on     │ everything is gone

Words. A *node* is a process; a *member* is one life of it, a row with a random id; a *session* is
a PostgreSQL session; an *epoch* is one life of a writable server's shared memory. A *lock*
excludes, a *lease* expires, a *leader* leads a *term*. A *grant* is the durable row of a lock
held; its *fencing token* rises with every grant of the key, across crashes and failovers, for the
epoch stands in front.

Rules, each in the module that is named:

1. One renewal renews everything (`session`). No clock is compared with another's: a member stops
   believing in itself `ttl - margin` after a renewal was *sent*; an observer believes it dead after
   it saw the counter stand still for a full ttl, having been well for a ttl itself (`members`).
2. Expiry frees nothing. Only a release, an ending or a break deletes a grant; an ending is one
   transaction, by compare-and-swap on the counter, behind the member's gate.
3. The advisory lock arbitrates, the grant remembers (`locks`); the grants are looked at again in a
   statement begun after the try. Who has to wait leaves a ticket: first come, first served across
   nodes, and a waiting exclusive is not overtaken by later shared ones.
4. A lost connection ends the lock session, never the member: it *resumes* under the next number,
   with the same locks and tokens (`session`), after a restart of the database as well.
5. To check and then write is not fencing: a write stands in a transaction that holds the gate and
   looks after (`fence`). An effect outside of PostgreSQL carries the token itself.
6. The commands of an ended member keep their locks until an adopter takes both (`claims`).
7. Nobody is special: leaderships spread by rendezvous hashing and move by themselves (`leaders`).

Does not promise: that a process which is frozen between its last check and an effect outside of
PostgreSQL is stopped there, unless that place checks tokens; anything on a server whose commits are
not durable (`synchronous_commit = off`, `fsync = off`).

Another service uses it through `Cluster` (`facade`), with a database URL and nothing else:

    async with Cluster("postgresql://...", node="worker-1") as cluster:
        async with cluster.lock(LockKey("invoice", "42"), wait_s=5) as hold:
            async with cluster.fenced(hold) as tx:
                await tx.run("update invoice set paid = true where invoice_id = 42")
"""

from engine_pg.cluster.facade import Cluster
from engine_pg.cluster.fence import FencedTx
from engine_pg.cluster.leaders import Leadership
from engine_pg.cluster.locks import Grant, Hold, LockBusy, LockKey, Mode, Reason, Wanted
from engine_pg.cluster.membership import Lease
from engine_pg.errors import (
    DatabaseAway,
    EngineError,
    LeaseLost,
    Locked,
    MemberEnded,
    NotHeld,
    OutcomeUnknown,
    StaleTerm,
    StaleToken,
    Unavailable,
)

__all__ = [
    "Cluster",
    "DatabaseAway",
    "EngineError",
    "FencedTx",
    "Grant",
    "Hold",
    "Leadership",
    "Lease",
    "LeaseLost",
    "LockBusy",
    "LockKey",
    "Locked",
    "MemberEnded",
    "Mode",
    "NotHeld",
    "OutcomeUnknown",
    "Reason",
    "StaleTerm",
    "StaleToken",
    "Unavailable",
    "Wanted",
]

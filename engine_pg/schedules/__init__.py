"""What happens at set times, once for the whole cluster, fired by whichever node is first.

    row of `schedule`: the next tick ── due by the database's clock ──▶ any node
                                                                           │ FOR UPDATE SKIP LOCKED
         run, job or command, the next tick  ◀── one transaction ──────────┘

The row stands at one tick, and the transaction that fires it moves the row to the next: there is no
tick that two transactions could find. A commit without an answer has happened or not; whoever looks
next sees which. No node's clock is asked, and no node is special.

`definition` is what people may write, `rule` when ticks are, `planning` what becomes of those that
are due (pure, both); `store` and `runs` own the tables; `firing` is the loop of each node; `works`
runs what is the engine's own.

Does not promise: that a tick fires at its time. While no database answers, nothing does; afterwards
its misfire policy says what becomes of it. Nor that a work runs once: a node that dies in it leaves
it to another one, which begins it anew.
"""

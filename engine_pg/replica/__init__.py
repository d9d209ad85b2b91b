"""A node's replica: inventory and cluster state in memory, exact by the change feed, for reads.

    copy (one snapshot) ──▶ follow (feed, batch by batch) ──▶ View ──▶ readers
                 ▲                    │                         ▲
                 └────── Resync ──────┘          read barrier ──┘

A `View` is immutable: whoever took one goes on reading it, however long, and sees each transaction
whole or not at all. A read that must see all that was committed before it began passes a *barrier*
first: a synchronous commit that reads the feed, sent after the read began and shared by all who
wait for the next one. While the database is away, the last view still answers and says its age.

`table` is how a table joins; `maps` and `order` are what views are made of.

Does not promise: that a view without a barrier is the newest; anything about what the feed is not
attached to.
"""

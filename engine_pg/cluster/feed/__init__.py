"""The change feed: what changed in the attached tables, in order, for any number of readers.

    writer ──row trigger──▶ change          in the writer's own transaction
      └──────ring after commit────▶ doorbell ──▶ reader: `read(cursor)`, or at its next poll

A *change* carries the row as it was written. A *cursor* is a snapshot and its epoch: a read returns
what is visible now and was not visible in the cursor, with its own snapshot as the next cursor. Ids
become visible out of order, and so do transactions; snapshots know. Nothing is lost, nothing comes
twice, one key's changes come in order.

A table is attached by `feed_attach`, in SQL. `Resync` tells a reader to take a new copy: the epoch
changed, the table was truncated, or retention has passed it.
"""

from engine_pg.cluster.feed.change import Change, Changes
from engine_pg.cluster.feed.cursor import Cursor
from engine_pg.cluster.feed.feed import Feed
from engine_pg.cluster.feed.retention import FeedRetention, Keep
from engine_pg.errors import Resync

__all__ = ["Change", "Changes", "Cursor", "Feed", "FeedRetention", "Keep", "Resync"]

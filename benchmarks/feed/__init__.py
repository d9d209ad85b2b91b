"""The change feed: how soon a commit is known elsewhere, and what it costs those who write.

propagation   from a commit's acknowledgement on one node to its change being applied on another,
              beside Redis pub/sub and Redis streams; and what a reader loses that is away
reads         a long list from the replica and by a query for each request; what its barriers cost;
              how soon a node that joins is ready, and how large its replica is
writes        32 writers, commits of 10 ms: with the feed, without it, with a NOTIFY in each
"""

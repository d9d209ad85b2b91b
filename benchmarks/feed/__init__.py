"""The change feed: how soon a commit is known elsewhere, and what it costs those who write.

propagation   from a commit's acknowledgement on one node to its change being applied on another,
              beside Redis pub/sub and Redis streams; and what a reader loses that is away
writes        32 writers, commits of 10 ms: with the feed, without it, with a NOTIFY in each
"""

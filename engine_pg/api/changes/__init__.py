"""The change feed for consumers outside: `GET /api/v1/changes`, server-sent events.

    feed ──▶ tail: the node's one reader, a window of pages, encoded once
               └──▶ stream, stream, ...: each a position, which is a cursor
                      └──▶ endpoint: one client's connection

A stream has no buffer of its own. Whoever keeps up is served from the window; whoever does not
reads the feed itself until it is at the window again. All that a client needs to go on, at any
node, is the id of the last event that it has seen.

Does not promise: events once a client's cursor is of another epoch, or was trimmed. It is told to
`resync`.
"""

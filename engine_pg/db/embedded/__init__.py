"""A PostgreSQL server of our own, for `engine-pg up`, demos and tests: no system package, no root.

A folder holds everything: the data, the log, the port and the generated passwords. The server is
a daemon that may outlive who started it; the next `start()` adopts it.

Does not promise: high availability, backups, or a lock against two starters of one folder at the
same moment (whoever owns the folder around it, as `engine-pg up` does, locks it).
"""

from engine_pg.db.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]

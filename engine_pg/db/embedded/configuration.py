"""The server's settings, each with its reason; whatever is not named keeps PostgreSQL's default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine_pg.db.embedded.site import Site

TUNED: Final[Mapping[str, str]] = {
    "max_connections": "200",  # a few nodes with pools, and demos and people beside them
    "max_locks_per_transaction": "256",  # times max_connections: the engine's locks live there
    "shared_buffers": "128MB",  # the inventory and the hot end of the feed stay in memory
    "max_wal_size": "512MB",  # a laptop's disk is not ours to fill
    "wal_level": "replica",  # writes what a server with standbys writes: timings stay honest
    "fsync": "on",  # an acknowledged commit survives a crash of the machine
    "synchronous_commit": "on",  # a heartbeat counts only once it is durable
    "jit": "off",  # our statements are short: compiling them costs more than it saves
    "autovacuum_naptime": "15s",  # heartbeats and the queue rewrite the same few rows all day
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",  # one language in the log, whatever the shell around us speaks
    "logging_collector": "on",
    "log_filename": "postgresql-%a.log",  # one file per weekday, each begun anew after a week:
    "log_rotation_age": "1d",  # the log is bounded without anybody's help
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_checkpoints": "off",
    "log_lock_waits": "on",  # a wait over a second is worth a line
    "log_line_prefix": "%m [%p] %q%a %u@%d ",
}


def configuration(site: Site, given: Mapping[str, str]) -> str:
    """Return the text of the settings file; given settings win over ours."""
    places = {
        "listen_addresses": "127.0.0.1",
        "port": str(site.memory.port),
        "unix_socket_directories": str(site.sockets),
        "log_directory": str(site.log),
        "cluster_name": site.name,  # in the title of every process: orphans are found by it
    }
    return settings_text({**TUNED, **given, **places})


def settings_text(settings: Mapping[str, str]) -> str:
    """Return settings as lines of a file that PostgreSQL reads."""
    return "".join(f"{name} = {_quoted(value)}\n" for name, value in settings.items())


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"

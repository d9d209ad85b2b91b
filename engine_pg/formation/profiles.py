"""What monitor, keepers and servers are told, each setting with its reason: one table.

Two profiles. `fast`: writes go on some four seconds after a primary is gone; one that is cut off,
alive, may stay writable for a few seconds beside the new one. It gets no commit acknowledged, but
it still answers queries and grants advisory locks; the engine knows it by its older timeline.
`safe`: the new primary waits until the old one has surely fenced itself, which takes ten seconds
more. The rule behind it, see `overlap_margin_s`:

    detection + primary_demote_timeout > wal_sender_timeout + network_partition_timeout + margin
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

Profile = Literal["fast", "safe"]
PROFILES: Final[tuple[Profile, ...]] = get_args(Profile)
_REPORT_S: Final = 1.0
"""How often a keeper reports; nothing changes that."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: what it is without us (empty: the same), in each profile, and why."""

    name: str
    without_us: str
    fast: str
    safe: str
    reason: str

    def value(self, profile: Profile) -> str:
        """Return the value in a profile."""
        return self.fast if profile == "fast" else self.safe


def _both(name: str, without_us: str, value: str, reason: str) -> Setting:
    return Setting(name, without_us, value, value, reason)


MONITOR: Final = (
    _both(
        "pgautofailover.health_check_period",
        "5s",
        "500ms",
        "a dead server is noticed at the next check",
    ),
    _both(
        "pgautofailover.health_check_timeout",
        "5s",
        "500ms",
        "a host that vanished does not even refuse: each check of it lasts this long",
    ),
    _both(
        "pgautofailover.health_check_max_retries",
        "2",
        "1",
        "one more try, so that a single lost packet fails nobody over; less than 1 is refused",
    ),
    _both("pgautofailover.health_check_retry_delay", "2s", "250ms", "the pause before that try"),
    Setting(
        "pgautofailover.node_considered_unhealthy_timeout",
        "20s",
        "2s",
        "3s",
        "a keeper reports each second: silent for so long, and its server failing its checks,"
        " the node is given up",
    ),
    Setting(
        "pgautofailover.primary_demote_timeout",
        "30s",
        "1s",
        "10s",
        "how long the new primary waits, read-only, for the old one to fence itself; the rule of"
        " the profiles",
    ),
    _both(
        "pgautofailover.startup_grace_period",
        "10s",
        "5s",
        "after a start of the monitor the keepers report first",
    ),
    _both("shared_buffers", "a quarter of the memory", "16MB", "a few rows are all it has"),
    _both("log_statement", "ddl", "none", "no statement that sets a password is logged"),
    _both("password_encryption", "", "scram-sha-256", "the only method that pg_hba.conf admits"),
)

NODE: Final = (
    _both(
        "wal_sender_timeout",
        "30s",
        "6s",
        "a cut-off primary counts its standby as present until then, and fences itself only"
        " after; at 2s the keeper misses the moment and never does",
    ),
    _both(
        "wal_receiver_timeout", "60s", "3s", "a standby notices a dead connection and reconnects"
    ),
    _both(
        "wal_receiver_status_interval", "10s", "1s", "keeps an idle stream alive within the timeout"
    ),
    _both(
        "wal_retrieve_retry_interval",
        "5s",
        "200ms",
        "commits wait for the standby: after a crash restart of the primary they go on when it is"
        " back",
    ),
    _both(
        "wal_keep_size", "8 GB", "512MB", "replication slots keep what is needed; disks are small"
    ),
    _both("synchronous_commit", "", "on", "acknowledged means: the standby has it on its disk"),
    _both("log_statement", "", "none", "no statement that sets a password is logged"),
    _both("password_encryption", "", "scram-sha-256", "the only method that pg_hba.conf admits"),
    _both(
        "ssl_min_protocol_version", "", "TLSv1.3", "all who connect are our own, of the same age"
    ),
)
"""Beside what a single server of the engine is told, see `engine_pg.db.embedded.configuration`."""

KEEPER: Final = (
    _both(
        "timeout.network_partition_timeout",
        "20",
        "3",
        "a primary that reaches neither monitor nor standby for so long stops by itself",
    ),
)

KEEPER_LINE: Final = (
    "tcp_user_timeout=1500&keepalives_idle=1&keepalives_interval=1&keepalives_count=1"
)
"""Of a keeper's connections to the monitor. When the network falls silent in the middle of a
report, the keeper would wait for its answer for a quarter of an hour: it would neither fence its
server nor hear of a failover."""


def chosen(settings: Iterable[Setting], profile: Profile) -> dict[str, str]:
    """Return names and values of some settings in a profile."""
    return {setting.name: setting.value(profile) for setting in settings}


def overlap_margin_s(profile: Profile) -> float:
    """Return how long a cut-off primary has surely been fenced when the next one takes writes.

    Below 2 s, the worst that was measured for the keepers' own delays, both may be writable.
    """
    monitor = {name: _seconds(text) for name, text in chosen(MONITOR[:7], profile).items()}
    tries = 1 + monitor["pgautofailover.health_check_max_retries"]
    try_s = (
        monitor["pgautofailover.health_check_timeout"]
        + monitor["pgautofailover.health_check_retry_delay"]
    )
    silent_s = monitor["pgautofailover.node_considered_unhealthy_timeout"] - _REPORT_S
    detected_s = max(silent_s, tries * try_s)
    fenced_s = _seconds(chosen(NODE, profile)["wal_sender_timeout"]) + _seconds(
        chosen(KEEPER, profile)["timeout.network_partition_timeout"]
    )
    return detected_s + monitor["pgautofailover.primary_demote_timeout"] - fenced_s


def _seconds(text: str) -> float:
    if text.endswith("ms"):
        return float(text.removesuffix("ms")) / 1000
    return float(text.removesuffix("s"))

"""A formation of pg_auto_failover on this machine, a monitor and its data nodes, for labs.

    engine ──▶ node1 (primary) ══ synchronous ══▶ node2 (secondary)   each under its pg_autoctl
                    ▲                                  ▲
                    └────────── monitor ───────────────┘   decides who is primary

Everything is in one folder: data, logs, generated passwords, certificates. The processes are
daemons that outlive who started them; the next `up` adopts those that still run. Each setting has
its reason in `profiles.py`.

Does not promise: to survive the loss of this machine; on several machines the same settings serve,
laid out by whoever installs them there. Linux only, for it finds processes by their folders.
"""

from engine_pg.formation.autoctl import Inside
from engine_pg.formation.formation import Formation, here
from engine_pg.formation.place import Plan

__all__ = ["Formation", "Inside", "Plan", "here"]

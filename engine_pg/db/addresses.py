"""Where a database's host is: its name is looked up here, not by psycopg or libpq.

psycopg asks the resolver in the event loop's few threads. While nobody answers for the name of a
server that died, such lookups pile up, and those for the others wait behind them; where the
resolver is gone itself, nobody reconnects. Here a server that was found once is found again.

Does not promise: that it is the same server. Its certificate tells, where `sslmode` asks for it.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from engine_pg.names import Names, is_address

_PATIENCE_S: Final = 0.2
"""A failover is a matter of tenths of a second."""
_NAMES: Final[dict[asyncio.AbstractEventLoop, Names]] = {}


async def located(conninfo: str) -> str:
    """Return what leads to a single host with the addresses of its name, all that it has.

    Raises `OperationalError` when it has none; wait for it under a bound.
    """
    name = _name_of(conninfo_to_dict(conninfo))
    if name is None:
        return conninfo
    try:
        found = await _names().addresses(name)
    except (OSError, ValueError) as error:
        raise psycopg.OperationalError(f"failed to resolve host {name!r}: {error}") from error
    # psycopg tries one address after the other; TLS and passwords go by the name as ever
    return make_conninfo(conninfo, host=",".join([name] * len(found)), hostaddr=",".join(found))


def _name_of(parameters: dict[str, Any]) -> str | None:
    """Return what is to be looked up: no socket, no address, and no list of hosts."""
    host = str(parameters.get("host") or "")
    elsewhere = parameters.get("hostaddr") or os.environ.get("PGHOSTADDR")
    if elsewhere or not host or host[0] in "/@" or "," in host or is_address(host):
        return None
    return host


def _names() -> Names:
    """Return those of the running event loop; what one knew goes when it is closed."""
    running = asyncio.get_running_loop()
    if running not in _NAMES:
        for loop in [loop for loop in list(_NAMES) if loop.is_closed()]:
            _NAMES.pop(loop, None)
        _NAMES[running] = Names(patience_s=_PATIENCE_S)
    return _NAMES[running]

"""Who asks for something on a command line: it stands in rows and events."""

from __future__ import annotations

import getpass
import socket


def who() -> str:
    """Return the user of this machine, and the machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"

"""A run in namespaces of its own: network, mounts and processes that nobody else sees.

Names, addresses, ports, packet filters and mounts of a run clash with nothing, and whatever ends
the run, a SIGKILL included, takes all of them along, with every process: nothing is to be cleaned
up, by us or by the next run.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TextIO

LIBC: Final = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, NEW_PROCESSES, NEW_NETWORK = 0x00020000, 0x20000000, 0x40000000
DIE_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG
PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP)
PROGRAMS: Final = ("ip", "nft", "ss", "nsenter", "mount")
TRIAL: Final = """
set -e
ip netns add trial
ip link add trial type bridge
ip link add trial-1 type veth peer name eth0 netns trial
ip link set trial-1 master trial up
ip tuntap add mode tun name trial-2
nft add table bridge trial
nft 'add chain bridge trial on { type filter hook prerouting priority 0; }'
nft add rule bridge trial on ip saddr 10.0.0.1 numgen random mod 1000 '<' 1 drop
nft add table ip trial
nft 'add chain ip trial on { type nat hook output priority -100; }'
nft add rule ip trial on ip daddr 127.0.0.1 tcp dport 1 dnat to 127.0.0.1:2
"""


def enclosed(run: Callable[[], int]) -> int:
    """Call a function in a process of its own in new namespaces; return what it returned."""

    def within() -> int:
        _enter()
        return _in_a_child(lambda: _init(run))

    return _in_a_child(within)


def refusal() -> str:
    """Say why this machine does not let a run be enclosed; empty: it does."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"there is no {', '.join(missing)}"
    complaint, told = os.pipe()

    def attempt() -> int:
        with os.fdopen(told, "w") as pipe:
            try:
                _enter()
                trial = _forked(lambda: _try_out(pipe))
                return _code(os.waitpid(trial, 0)[1])
            except OSError as error:
                pipe.write(f"{error}")
                return 1

    child = _forked(attempt)
    os.close(told)
    with os.fdopen(complaint) as pipe:
        said = pipe.read().strip()
    failed = _code(os.waitpid(child, 0)[1])
    return (said or "it does not work") if failed else ""


def _enter() -> None:
    if LIBC.unshare(NEW_MOUNTS | NEW_PROCESSES | NEW_NETWORK):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _try_out(pipe: TextIO) -> int:
    _furnish()
    done = subprocess.run(["sh", "-c", TRIAL], check=False, capture_output=True, text=True)
    print(done.stderr, end="", file=pipe, flush=True)
    return done.returncode


def _init(run: Callable[[], int]) -> int:
    """Be the namespace's first process, which buries whatever nobody else waits for."""
    _furnish()
    return _in_a_child(run)


def _in_a_child(run: Callable[[], int]) -> int:
    """Pass on to a child what we are told, bury all that end before it, and return its code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until there is somebody to pass them on
    child = _forked(run)
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the run itself
    while True:
        pid, status = os.wait()
        if pid == child:
            return _code(status)


def _furnish() -> None:
    """Mount what belongs to the new namespaces, and nothing for anybody outside."""
    mount = ["mount", "--make-rprivate", "/"]
    subprocess.run(mount, check=True)
    Path("/run/netns").mkdir(parents=True, exist_ok=True)
    for kind, place in (("proc", "/proc"), ("tmpfs", "/run/netns"), ("tmpfs", "/dev/shm")):
        subprocess.run(["mount", "-t", kind, kind, place], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _forked(run: Callable[[], int]) -> int:
    """Call a function in a child that dies with us; return its process id."""
    if child := os.fork():
        return child
    code = 1
    LIBC.prctl(DIE_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    try:
        code = run()
    except BaseException as error:  # noqa: BLE001 - nothing may unwind past a fork
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code

"""A wire with a delay: whatever enters one of its two interfaces leaves the other one later.

The interfaces last as long as the process, wherever they are moved meanwhile. A line on standard
output says that they are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import sys

SET_INTERFACE = 0x400454CA  # TUNSETIFF
PLAIN_PACKETS = 0x0001 | 0x1000  # IFF_TUN | IFF_NO_PI
LONGEST_BYTES = 65536
AT_ONCE = 64


def interface(name: str) -> int:
    """Make an interface; return the descriptor at which its packets are read and written."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, SET_INTERFACE, struct.pack("16sH22x", name.encode(), PLAIN_PACKETS))
    return descriptor


def carry(loop: asyncio.AbstractEventLoop, source: int, beyond: int, delay_s: float) -> None:
    """Hand on what waits at one end after the delay; in order, for all wait equally long."""
    with contextlib.suppress(BlockingIOError):
        for _ in range(AT_ONCE):
            loop.call_later(delay_s, hand_on, beyond, os.read(source, LONGEST_BYTES))


def hand_on(beyond: int, packet: bytes) -> None:
    """Let a packet out, or lose it where nobody takes it, as a wire does."""
    with contextlib.suppress(OSError):
        os.write(beyond, packet)


async def main(near: str, far: str, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    ends = interface(near), interface(far)
    for source, beyond in (ends, ends[::-1]):
        loop.add_reader(source, carry, loop, source, beyond, delay_s)
    print("there", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))

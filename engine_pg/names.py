"""What addresses a machine's name stands for; a silent resolver holds up nobody else.

`socket.getaddrinfo` cannot be interrupted, and the event loop has only a few threads for it: names
that nobody answers for would take them all, from other names, from all else that runs in threads,
and from a node that stops. Here a lookup runs in a thread that nobody waits for at the end, and the
names that failed last have threads of their own.

Does not promise: that an address is still the host's; TLS and the host's identity tell.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATIENCE_S: Final = 1.0
"""How long the resolver is waited for, once for each lookup, where an earlier answer is known."""

MAX_KNOWN: Final = 8192

Answer = asyncio.Future["Sequence[str]"]


class Question(NamedTuple):
    """A lookup that is under way, and until when it is waited for where an answer is known."""

    answer: Answer
    until: float


def system_lookup(name: str) -> Sequence[str]:
    """Ask the system's resolver (blocks); raises `OSError`, or `ValueError` for what is no name."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Names:
    """The lookups of one event loop; who asks for a name meanwhile shares the answer."""

    def __init__(
        self,
        look_up: Callable[[str], Sequence[str]] = system_lookup,
        *,
        threads: int = 8,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._patience_s = patience_s
        self._known: dict[str, Sequence[str]] = {}
        self._failed: set[str] = set()
        self._asked: dict[str, Question] = {}
        self._sound = _Lane(look_up, threads)
        self._doubtful = _Lane(look_up, max(1, threads // 4))

    async def addresses(self, name: str) -> Sequence[str]:
        """Return the addresses of a name, or those of the last time if the resolver is silent.

        Raises `OSError` or `ValueError` as the resolver does; wait for it under a bound.
        """
        if is_address(name):
            return [name]
        asked = self._asked.get(name) or self._ask(name)
        known = self._known.get(name)
        if known is None:
            return await asyncio.shield(asked.answer)
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout_at(asked.until):
                return await asyncio.shield(asked.answer)
        return known

    def _ask(self, name: str) -> Question:
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        answer.add_done_callback(lambda _: self._settle(name, answer))
        self._asked[name] = asked = Question(answer, loop.time() + self._patience_s)
        (self._doubtful if name in self._failed else self._sound).put(name, answer)
        return asked

    def _settle(self, name: str, answer: Answer) -> None:
        del self._asked[name]
        if answer.exception() is not None:  # also says that somebody saw it
            self._failed.add(name)
            if len(self._failed) > MAX_KNOWN:
                self._failed.clear()
            return
        self._failed.discard(name)
        self._known.pop(name, None)
        self._known[name] = answer.result()
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]


class _Lane:
    """Some threads, started when needed, that die with the process whatever they wait for."""

    def __init__(self, look_up: Callable[[str], Sequence[str]], threads: int) -> None:
        self._look_up = look_up
        self._threads = threads
        self._busy = 0
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, Answer]] = deque()

    def put(self, name: str, answer: Answer) -> None:
        """Answer from a thread as soon as one is free."""
        with self._lock:
            self._waiting.append((name, answer))
            if self._busy == self._threads:
                return
            self._busy += 1
        threading.Thread(target=self._work, name="names", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy -= 1
                    return
                name, answer = self._waiting.popleft()
            try:
                found: Sequence[str] | Exception = self._look_up(name)
            except (OSError, ValueError) as error:
                found = error
            with suppress(RuntimeError):  # the loop is closed: nobody asks any more
                answer.get_loop().call_soon_threadsafe(_give, answer, found)


def _give(answer: Answer, found: Sequence[str] | Exception) -> None:
    if isinstance(found, Exception):
        answer.set_exception(found)
    else:
        answer.set_result(found)


def is_address(name: str) -> bool:
    """Say whether it is an address already."""
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False

"""A resolver that says what a test tells it, and is silent about all else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_BOUND_S = 10.0


class Resolver:
    """Answers what it knows, `addresses` or an error; for any other name it never does."""

    def __init__(self, **known: list[str] | Exception) -> None:
        self.known = known
        self.ended = threading.Event()
        self.asked: list[str] = []

    def __call__(self, name: str) -> list[str]:
        self.asked.append(name)
        answer = self.known.get(name)
        if answer is None:
            self.ended.wait(_BOUND_S)
            answer = self.known.get(name) or socket.gaierror("nobody answered")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def getaddrinfo(self, name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        """Answer as the system's does, whoever asks."""
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in self(name)]


@contextmanager
def system_resolver(monkeypatch: pytest.MonkeyPatch, **known: list[str]) -> Iterator[Resolver]:
    """Let the whole process ask this one."""
    resolver = Resolver(**known)
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    try:
        yield resolver
    finally:
        resolver.ended.set()

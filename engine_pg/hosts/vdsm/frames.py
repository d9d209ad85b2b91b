"""Bytes and frames of STOMP 1.2, the subset that VDSM speaks.

Does not promise: trailing spaces in header names, or any other care for peers other than VDSM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final

from engine_pg.errors import EngineError

HEARTBEAT: Final = b"\n"

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_BODY_BYTES: Final = 64 * 1024 * 1024  # all statistics of a host with thousands of VMs fit

_HEAD_END: Final = re.compile(rb"\n\r?\n")
_LENGTH: Final = re.compile(r"[0-9]{1,12}")
_ESCAPED: Final = {"\\": "\\\\", "\r": "\\r", "\n": "\\n", ":": "\\c"}
_UNESCAPED: Final = {escape: char for char, escape in _ESCAPED.items()}
_UNESCAPED_COMMANDS: Final = frozenset({"CONNECT", "CONNECTED"})


@dataclass(frozen=True, slots=True)
class Frame:
    """One STOMP frame."""

    command: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


def encode(frame: Frame) -> bytes:
    """Return the frame's bytes; `content-length` is added when there is a body."""
    plain = frame.command in _UNESCAPED_COMMANDS
    lines = [frame.command]
    lines += [
        f"{name}:{value}" if plain else f"{_escape(name)}:{_escape(value)}"
        for name, value in frame.headers.items()
    ]
    if frame.body:
        lines.append(f"content-length:{len(frame.body)}")
    return "\n".join([*lines, "", ""]).encode(errors="replace") + frame.body + b"\0"


class Parser:
    """Frames out of bytes that come in pieces; each byte is looked at a bounded number of times.

    A violation raises `EngineError`: the stream has lost its rhythm, and only closing it helps.
    """

    def __init__(self, *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray()
        self._start: int = 0  # of the first byte that belongs to no complete frame
        self._seen: int = 0  # up to here the end mark was looked for in vain
        self._head: Frame | None = None

    def feed(self, data: bytes) -> None:
        """Add received bytes; call `next_frame` until it returns None afterwards."""
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """Return the next complete frame, or None until more bytes come."""
        self._head = self._head or self._read_head()
        body = None if self._head is None else self._read_body(self._head.headers)
        if self._head is None or body is None:
            self._compact()
            return None
        frame = replace(self._head, body=body)
        self._head = None
        return frame

    def _read_head(self) -> Frame | None:
        self._skip_line_ends()
        found = _HEAD_END.search(self._buffer, max(self._start, self._seen - 2))
        size = (found.start() if found else len(self._buffer)) - self._start
        if size > MAX_HEAD_BYTES:
            raise EngineError(f"a frame's head exceeds {MAX_HEAD_BYTES} bytes")
        if found is None:
            self._seen = len(self._buffer)
            return None
        head = _parse_head(bytes(self._buffer[self._start : found.start()]))
        self._start = self._seen = found.end()
        return head

    def _skip_line_ends(self) -> None:
        while self._start < len(self._buffer) and self._buffer[self._start] in b"\r\n":
            self._start += 1

    def _read_body(self, headers: dict[str, str]) -> bytes | None:
        declared = headers.get("content-length")
        if declared is None:
            end = self._buffer.find(b"\0", self._seen)
            size = (len(self._buffer) if end < 0 else end) - self._start
        else:
            size = int(declared) if _LENGTH.fullmatch(declared) else -1
            end = self._start + size
        if not 0 <= size <= self._max_body_bytes:
            raise EngineError(
                f"a frame's body exceeds {self._max_body_bytes} bytes, or has no size"
            )
        if end < 0 or end >= len(self._buffer):
            self._seen = len(self._buffer)
            return None
        if self._buffer[end] != 0:
            raise EngineError("a frame is longer than its content-length")
        body = bytes(memoryview(self._buffer)[self._start : end])
        self._start = self._seen = end + 1
        return body

    def _compact(self) -> None:
        del self._buffer[: self._start]
        self._seen = max(0, self._seen - self._start)
        self._start = 0


def _parse_head(head: bytes) -> Frame:
    try:
        command, *lines = head.decode().replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise EngineError("a frame's head is not UTF-8") from error
    frame = Frame(command.rstrip("\r"))
    for line in lines:
        name, colon, value = line.rstrip("\r").partition(":")
        if not colon:
            raise EngineError("a header line has no colon")
        if command not in _UNESCAPED_COMMANDS:
            name, value = _unescape(name), _unescape(value)
        frame.headers.setdefault(name, value)  # of repeated headers the first counts
    return frame


def _escape(text: str) -> str:
    return re.sub(r"[\\\r\n:]", lambda found: _ESCAPED[found[0]], text)


def _unescape(text: str) -> str:
    return re.sub(r"\\.", lambda found: _UNESCAPED.get(found[0], found[0]), text)

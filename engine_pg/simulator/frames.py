"""STOMP 1.2 frames as VDSM writes them: a codec of the simulated host's own.

It shares nothing with the driver's, so that a mistake in one is not repeated in the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from engine_pg.errors import Invalid

MAX_FRAME: Final = 16 * 1024 * 1024
MAX_HEAD: Final = 64 * 1024
HEART_BEAT: Final = b"\n"

_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_ESCAPED: Final = re.compile(r"\\(.?)")
_UNESCAPE: Final = {"n": "\n", "r": "\r", "c": ":", "\\": "\\"}
_ESCAPE: Final = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", ":": "\\c"})


class BrokenFrame(Invalid):
    """These bytes are no frame; nothing after them can be trusted."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One STOMP frame."""

    command: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    def encode(self) -> bytes:
        """Return the bytes of this frame; a body always comes with its length."""
        plain = self.command in {"CONNECT", "CONNECTED"}
        headers = self.headers | ({"content-length": str(len(self.body))} if self.body else {})
        lines = [self.command] + [
            f"{name}:{value}" if plain else f"{name.translate(_ESCAPE)}:{value.translate(_ESCAPE)}"
            for name, value in headers.items()
        ]
        return "\n".join(lines).encode() + b"\n\n" + self.body + b"\0"


class Decoder:
    """Cuts a stream of bytes into frames; heart-beats between them vanish."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._frame: Frame | None = None  # its head is complete, its body is not
        self._length: int | None = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take more bytes and yield each frame that they complete."""
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        if self._frame is None and not self._read_head():
            return None
        end = self._body_end()
        if end is None or self._frame is None:
            return None
        frame = Frame(self._frame.command, self._frame.headers, bytes(self._buffer[:end]))
        self._drop(end + 1)
        self._frame = None
        return frame

    def _read_head(self) -> bool:
        beats = len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))
        if beats:
            self._drop(beats)
        found = _HEAD_END.search(self._buffer, max(0, self._searched - 3))
        if (found.start() if found else len(self._buffer)) > MAX_HEAD:
            raise BrokenFrame("The head of a frame is too long.")
        if found is None:
            self._searched = len(self._buffer)
            return False
        self._frame = _parse_head(bytes(self._buffer[: found.start()]))
        self._length = _length_of(self._frame)
        self._drop(found.end())
        return True

    def _body_end(self) -> int | None:
        if self._length is None:
            end = self._buffer.find(b"\0", self._searched)
            self._searched = len(self._buffer)
            if max(end, len(self._buffer) if end < 0 else 0) > MAX_FRAME:
                raise BrokenFrame("A frame is too long.")
            return None if end < 0 else end
        if len(self._buffer) <= self._length:
            return None
        if self._buffer[self._length] != 0:
            raise BrokenFrame("A frame is longer than it says.")
        return self._length

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._searched = 0


def _parse_head(head: bytes) -> Frame:
    try:
        command, *lines = head.decode().replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise BrokenFrame("The head of a frame is no UTF-8.") from error
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BrokenFrame(f"A header has no colon: {line[:80]!r}.")
        if command != "CONNECT":
            name, value = _unescape(name), _unescape(value)
        headers.setdefault(name, value)
    return Frame(command, headers)


def _unescape(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        try:
            return _UNESCAPE[found[1]]
        except KeyError as error:
            raise BrokenFrame(f"Unknown escape in a header: {found[0]!r}.") from error

    return _ESCAPED.sub(character, text) if "\\" in text else text


def _length_of(frame: Frame) -> int | None:
    text = frame.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or int(text) > MAX_FRAME:
        raise BrokenFrame(f"Not a length that is accepted: {text[:20]!r}.")
    return int(text)

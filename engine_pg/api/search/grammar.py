"""From the text of a search to a tree; nothing here knows which fields there are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from engine_pg.api.wire.document import ILLEGAL
from engine_pg.errors import Invalid

_LENGTH_LIMIT: Final = 8192
_DEPTH_LIMIT: Final = 20
_CONDITION_LIMIT: Final = 200
_PAGE_LIMIT: Final = 1_000_000
_KEYWORDS: Final = ("and", "or", "sortby", "page")
_TOKEN: Final = re.compile(
    r'\s*(?:"(?P<quoted>[^"]*)"|(?P<op>!=|<=|>=|=|<|>)|(?P<paren>[()])'
    r'|(?P<word>(?:[^\s"()=<>!]|!(?!=))+))'
)

Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a quoted text, an operator or a parenthesis."""

    kind: str
    text: str

    def says(self, *keywords: str) -> bool:
        """Return whether it is one of these keywords."""
        return self.kind == "word" and self.text.lower() in keywords


@dataclass(frozen=True, slots=True)
class Text:
    """Free text, to be found anywhere."""

    value: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field compared with a value."""

    field: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Joined:
    """Several conditions of which all or any must hold."""

    junction: Literal["and", "or"]
    parts: tuple[Node, ...]


Node = Text | Comparison | Joined


@dataclass(frozen=True, slots=True)
class Search:
    """A whole search; `page` counts from 1."""

    where: Node | None = None
    sort_field: str | None = None
    descending: bool = False
    page: int = 1


def tokens(text: str) -> list[Token]:
    """Return the tokens of a search, or raise Invalid."""
    if len(text) > _LENGTH_LIMIT:
        raise Invalid(f"The search is longer than {_LENGTH_LIMIT} characters")
    if "'" in text or ";" in text or ILLEGAL.search(text):
        raise Invalid("The search has a character that is not allowed")
    found: list[Token] = []
    text, position = text.rstrip(), 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise Invalid("The search has a quotation mark without its partner")
        found.append(Token(match.lastgroup, match.group(match.lastgroup)))
        position = match.end()
    return found


class _Parser:
    def __init__(self, found: list[Token]) -> None:
        self._tokens = found
        self._at = 0
        self._conditions = 0

    def search(self) -> Search:
        where = None if self._ends() else self._any(0)
        sort_field, descending = self._sort()
        page = self._page()
        if self._peek() is not None:
            raise Invalid("The search goes on after its end")
        return Search(where, sort_field, descending, page)

    def _peek(self, ahead: int = 0) -> Token | None:
        place = self._at + ahead
        return self._tokens[place] if place < len(self._tokens) else None

    def _next(self, expected: str) -> Token:
        token = self._peek()
        if token is None:
            raise Invalid(f"The search ends where {expected} is expected")
        self._at += 1
        return token

    def _stands(self, *keywords: str) -> bool:
        token = self._peek()
        return token is not None and token.says(*keywords) and not self._is_field()

    def _takes(self, *keywords: str) -> bool:
        stands = self._stands(*keywords)
        self._at += stands
        return stands

    def _is_field(self) -> bool:
        follower = self._peek(1)
        return follower is not None and follower.kind == "op"

    def _ends(self) -> bool:
        return self._peek() in (None, Token("paren", ")")) or self._stands("sortby", "page")

    def _any(self, depth: int) -> Node:
        parts = [self._all(depth)]
        while self._takes("or"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else Joined("or", tuple(parts))

    def _all(self, depth: int) -> Node:
        parts = [self._condition(depth)]
        while not self._ends() and not self._stands("or"):
            self._takes("and")
            parts.append(self._condition(depth))
        return parts[0] if len(parts) == 1 else Joined("and", tuple(parts))

    def _condition(self, depth: int) -> Node:
        self._conditions += 1
        if self._conditions > _CONDITION_LIMIT or depth > _DEPTH_LIMIT:
            raise Invalid("The search has too many conditions")
        keyword = self._stands(*_KEYWORDS)
        token = self._next("a condition")
        if token == Token("paren", "("):
            inner = self._any(depth + 1)
            if self._next("a closing parenthesis") != Token("paren", ")"):
                raise Invalid("The search has a parenthesis without its partner")
            return inner
        if keyword or token.kind not in ("word", "quoted"):
            raise Invalid(f"The search has {token.text!r} where a condition is expected")
        operator = self._peek()
        if token.kind == "quoted" or operator is None or operator.kind != "op":
            return Text(token.text)
        self._at += 1
        value = self._next("a value")
        if value.kind not in ("word", "quoted"):
            raise Invalid(f"The search has {value.text!r} where a value is expected")
        return Comparison(token.text.lower(), operator.text, value.text)

    def _sort(self) -> tuple[str | None, bool]:
        if not self._takes("sortby"):
            return None, False
        field = self._next("a field").text.lower()
        descending = self._takes("desc")
        if not descending:
            self._takes("asc")
        return field, descending

    def _page(self) -> int:
        if not self._takes("page"):
            return 1
        text = self._next("a page number").text
        if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= _PAGE_LIMIT):
            raise Invalid(f"{text[:40]!r} is not a page number")
        return int(text)


def parsed(text: str) -> Search:
    """Return the tree of a search, or raise Invalid."""
    return _Parser(tokens(text)).search()

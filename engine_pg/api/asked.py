"""What a request below `/api/v1` asks for: its query and its body, and no more."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, Literal, cast

from starlette.requests import Request

from engine_pg.cluster import looks
from engine_pg.errors import Invalid

_TRUTH: Final[Mapping[str, bool]] = {"true": True, "1": True, "false": False, "0": False}
_LONGEST: Final = 1000
_TAG: Final = re.compile(r'"(\d{1,18})"')


class Filters:
    """The parameters of a query, of which only the named ones are understood.

    `repeated` is the one that may be given more than once.
    """

    def __init__(self, request: Request, *known: str, repeated: str = "") -> None:
        self._given = request.query_params
        for name in self._given:
            if name not in known and name != repeated:
                there = ", ".join([*known, *filter(None, [repeated])]) or "none"
                raise Invalid(f"There is no parameter {name[:40]} here; there are: {there}")
            if len(self._given.getlist(name)) > 1 and name != repeated:
                raise Invalid(f"The parameter {name} is given more than once")

    def text(self, name: str) -> str | None:
        """Return a parameter that is looked for as it is."""
        text = self._given.get(name)
        if text is not None and (not text or len(text) > _LONGEST or "\0" in text):
            raise Invalid(f"The parameter {name} should be a text of 1 to {_LONGEST} characters")
        return text

    def texts(self, name: str) -> list[str]:
        """Return all values of the repeated parameter."""
        return self._given.getlist(name)

    def flag(self, name: str, default: Literal["true", "false"] = "false") -> bool:
        """Return a parameter that is true or false."""
        text = self._given.get(name, default).lower()
        if text not in _TRUTH:
            raise Invalid(f"The parameter {name} should be true or false, not {text[:40]}")
        return _TRUTH[text]

    def most(self) -> int:
        """Return `max`: how many rows are wanted."""
        text = self._given.get("max")
        if text is None:
            return looks.MOST
        if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= looks.MOST):
            raise Invalid(f"The parameter max should be from 1 to {looks.MOST}, not {text[:40]}")
        return int(text)


async def json_object(request: Request, *known: str) -> Mapping[str, object]:
    """Return the body, an object of which only the named fields are understood."""
    try:
        given = cast("object", json.loads(await request.body()))
    except (ValueError, RecursionError) as error:
        raise Invalid("The body should be a JSON object") from error
    if not isinstance(given, dict):
        raise Invalid("The body should be a JSON object")
    found = cast("dict[str, object]", given)
    if unknown := sorted(found.keys() - set(known)):
        raise Invalid(f"There is no field {unknown[0][:40]} here; there are: {', '.join(known)}")
    return found


def field_text(given: Mapping[str, object], name: str) -> str:
    """Return a field that should be a text, and say something."""
    text = given.get(name)
    if not isinstance(text, str) or not text.strip():
        raise Invalid(f"The field {name} should be a text")
    return text


def tagged(version: int) -> dict[str, str]:
    """Return the header that tells a version."""
    return {"ETag": f'"{version}"'}


def expected_version(request: Request) -> int | None:
    """Return the version that the caller has seen; None: he does not say."""
    text = request.headers.get("if-match", "*").strip()
    if text == "*":
        return None
    if not (found := _TAG.fullmatch(text)):
        raise Invalid(f"If-Match should be an ETag that was shown, not {text[:40]}")
    return int(found[1])

"""A client of the API as any oVirt client is one: XML, a bearer token, whichever node answers."""

from __future__ import annotations

import asyncio
import html
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal, Self
from xml.etree import ElementTree

import httpx
from defusedxml import ElementTree as SafeElementTree

from engine_pg.clock import boottime
from engine_pg.errors import (
    Conflict,
    EngineError,
    NotFound,
    OutcomeUnknown,
    Rejected,
    Unauthorized,
    Unavailable,
)

Element = ElementTree.Element

_API: Final = "/ovirt-engine/api"
_TOKEN: Final = "/ovirt-engine/sso/oauth/token"
_PAUSE_S: Final = 0.1
_AWAY: Final = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE)
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_REFUSALS: Final[dict[int, type[EngineError]]] = {401: Unauthorized, 404: NotFound, 409: Conflict}


def element(tag: str, *content: str | Element) -> Element:
    """Return an element with text or children."""
    made = Element(tag)
    for piece in content:
        if isinstance(piece, str):
            made.text = piece
        else:
            made.append(piece)
    return made


def named(tag: str, name: str) -> Element:
    """Return a reference by name."""
    return element(tag, element("name", name))


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of one try at one node; status 0: no answer."""

    url: str
    status: int
    said: str = ""


@dataclass(frozen=True, slots=True)
class _Request:
    method: Literal["GET", "POST", "DELETE"]
    path: str
    content: bytes = b""
    media: str = "application/xml"
    patience_s: float = 15.0
    key: str = ""  # the same key is the same request, however often it is sent

    @property
    def repeatable(self) -> bool:
        return self.method == "GET" or bool(self.key)


class Client:
    """Asks the nodes in turn until one answers, beginning with the one that the caller names."""

    def __init__(
        self,
        urls: Sequence[str],
        user: str,
        password: str,
        *,
        tell: Callable[[Heard], None] = lambda _: None,
    ) -> None:
        self._urls = list(urls)
        self._credentials = {"username": user, "password": password}
        self._tell = tell
        self._token = ""
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(30.0, connect=2.0), trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def get(self, path: str, *, first: int = 0) -> Element:
        """Read an entity or a collection; repeated until a node answers."""
        return _parsed(await self._ask(_Request("GET", _API + path), first))

    async def post(self, path: str, body: Element, *, first: int = 0, key: str = "") -> Element:
        """Create an entity or start an action; repeated while nothing was sent, or under a key."""
        request = _Request("POST", _API + path, ElementTree.tostring(body), key=key)
        return _parsed(await self._ask(request, first))

    async def delete(self, path: str, *, first: int = 0, key: str = "") -> None:
        """Remove an entity; repeated as a creation is."""
        await self._ask(_Request("DELETE", _API + path, key=key), first)

    async def token(self) -> str:
        """Log in, and return the token, for requests that are to be sent otherwise."""
        return _accepted(await self._log_in(self._urls[0])).json()["access_token"]

    async def status(self) -> dict[str, Any]:
        """Return what a node knows of the whole cluster."""
        return await self._document("/api/v1/status")

    async def formation(self) -> dict[str, Any]:
        """Return what a node knows of the formation that the database is on."""
        return await self._document("/api/v1/formation")

    async def _document(self, path: str) -> dict[str, Any]:
        request = _Request("GET", path, media="application/json", patience_s=1.0)
        return (await self._ask(request, first=0)).json()

    async def _ask(self, request: _Request, first: int) -> httpx.Response:
        deadline = boottime() + request.patience_s
        for turn in itertools.count(first):
            url = self._urls[turn % len(self._urls)]
            try:
                answer = await self._authorized(url, request)
            except _NOT_SENT as problem:
                said = f"{url} does not answer: {problem}"
                self._tell(Heard(url, 0, said))
            except httpx.TransportError as problem:
                said = f"{url} fell silent: {problem!r}"
                self._tell(Heard(url, 0, said))
                if not request.repeatable:
                    raise OutcomeUnknown(said) from problem
            else:
                said = "" if answer.is_success else f"{url} answers {_detail(answer)}"
                self._tell(Heard(url, answer.status_code, said))
                if answer.status_code not in _AWAY:
                    return _accepted(answer)
            if boottime() > deadline:
                raise Unavailable(said)
            await asyncio.sleep(_PAUSE_S)
        raise AssertionError("the turns never end")

    async def _authorized(self, url: str, request: _Request) -> httpx.Response:
        if self._token:
            answer = await self._send(url, request)
            if answer.status_code != HTTPStatus.UNAUTHORIZED:
                return answer
        login = await self._log_in(url)
        return login if login.status_code != HTTPStatus.OK else await self._send(url, request)

    async def _log_in(self, url: str) -> httpx.Response:
        form = {"grant_type": "password", "scope": "ovirt-app-api"} | self._credentials
        login = await self._http.post(url + _TOKEN, data=form)
        if login.status_code == HTTPStatus.OK:
            self._token = login.json()["access_token"]
        return login

    async def _send(self, url: str, request: _Request) -> httpx.Response:
        headers = {
            "Accept": request.media,
            "Content-Type": request.media,
            "Version": "4",
            "Authorization": f"Bearer {self._token}",
        } | ({"Idempotency-Key": request.key} if request.key else {})
        return await self._http.request(
            request.method, url + request.path, headers=headers, content=request.content
        )


def _accepted(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    raise _REFUSALS.get(answer.status_code, Rejected)(_detail(answer))


def _parsed(answer: httpx.Response) -> Element:
    return SafeElementTree.fromstring(answer.content)


def _detail(answer: httpx.Response) -> str:
    """Return what a refusal says: a fault in XML, an OAuth error in JSON, or its status."""
    found = re.search(r"<detail>(.*?)</detail>|\"error\":\s*\"([^\"]*)\"", answer.text, re.DOTALL)
    said = next(filter(None, found.groups()), "") if found else answer.text[:200]
    return " ".join([str(answer.status_code), *html.unescape(said).split()])

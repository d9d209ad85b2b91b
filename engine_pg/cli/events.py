"""A client of `GET /api/v1/changes`: goes on at the next node where the one before left off."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import httpx

from engine_pg.clock import boottime
from engine_pg.errors import Invalid, Unauthorized, Unavailable

_CHANGES: Final = "/api/v1/changes"
_TOKEN: Final = "/ovirt-engine/sso/oauth/token"
_TIMEOUT: Final = httpx.Timeout(10.0, read=65.0)  # the server gives a sign of life each 30 s
_PAUSE_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Event:
    """What a node told: a `change` or a `resync`; the cursor is where to go on after it."""

    kind: str
    cursor: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask for; `away_s` is how long no node may answer."""

    since: str
    topics: Sequence[str] = ()
    follow: bool = True
    away_s: float = 30.0


class Changes:
    """Asks the nodes at `urls`, one at a time, as a user."""

    def __init__(self, urls: Sequence[str], user: str, password: str) -> None:
        self.cursor = ""
        self._urls = urls
        self._credentials = {"username": user, "password": password}
        self._token = ""

    async def events(self, wanted: Wanted) -> AsyncGenerator[Event]:
        """Yield what is told, each once, from whatever node; raises `Unavailable` when none is."""
        heard_at = boottime()
        async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as http:
            for turn in itertools.count():
                url = self._urls[turn % len(self._urls)].rstrip("/")
                try:
                    async with aclosing(self._events_of(http, url, wanted)) as events:
                        async for event in events:
                            yield event
                            heard_at = boottime()
                    if not wanted.follow:
                        return
                except (httpx.TransportError, Unavailable) as problem:
                    said = f"{url}: {problem or type(problem).__name__}"
                    if boottime() - heard_at > wanted.away_s:
                        raise Unavailable(f"no node tells of changes; {said}") from problem
                await asyncio.sleep(_PAUSE_S)

    async def _events_of(
        self, http: httpx.AsyncClient, url: str, wanted: Wanted
    ) -> AsyncGenerator[Event]:
        if not self._token:
            await self._log_in(http, url)
        request = http.build_request(
            "GET",
            url + _CHANGES,
            params={
                "from": self.cursor or wanted.since,
                "follow": str(wanted.follow).lower(),
                "topic": list(wanted.topics),
            },
            headers={"Authorization": f"Bearer {self._token}"},
        )
        answer = await http.send(request, stream=True)
        try:
            if answer.status_code != HTTPStatus.OK:
                await self._refused(answer)
            block: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if line:
                    block[name] = value
                    continue
                self.cursor = block.get("id", self.cursor)
                if "data" in block:
                    yield Event(block["event"], self.cursor, json.loads(block["data"]))
                block = {}
        finally:
            await answer.aclose()

    async def _refused(self, answer: httpx.Response) -> None:
        said = (await answer.aread()).decode(errors="replace")
        if answer.status_code == HTTPStatus.UNAUTHORIZED:  # the token ended: log in again
            self._token = ""
            raise Unavailable("the token has ended")
        if answer.status_code == HTTPStatus.BAD_REQUEST:
            raise Invalid(json.loads(said)["error"])
        raise Unavailable(f"{answer.status_code} {said[:200]}")

    async def _log_in(self, http: httpx.AsyncClient, url: str) -> None:
        form = {"grant_type": "password", "scope": "ovirt-app-api"} | self._credentials
        answer = await http.post(url + _TOKEN, data=form)
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unavailable(f"{answer.status_code} {answer.text[:200]}")
        if answer.status_code != HTTPStatus.OK:
            raise Unauthorized(answer.json().get("error", answer.text[:200]))
        self._token = answer.json()["access_token"]

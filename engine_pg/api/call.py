"""One request as the resources see it: who asks, what for, and how it is answered."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.accounts.tokens import Identity
from engine_pg.api.auth import IDENTITY, READING, READING_METHODS
from engine_pg.api.edge import correlation
from engine_pg.api.edge.paths import BASE
from engine_pg.api.services import Services
from engine_pg.api.wire import media
from engine_pg.api.wire.document import Document
from engine_pg.api.wire.kinds import uuid
from engine_pg.api.wire.shape import Shape
from engine_pg.commands.rows import Submission
from engine_pg.errors import Invalid, NotFound
from engine_pg.ids import derived_id, new_id
from engine_pg.replica.reading import Reading
from engine_pg.replica.view import View

_KEY_LIMIT: Final = 255
_LONG: Final = 200
STALENESS: Final = "Engine-Staleness"
"""The header of an answer that may be out of date: by how many seconds at most."""


def reading_of(request: Request) -> Reading:
    """Return what a request is answered from."""
    return request.scope[READING]


def age_of(reading: Reading) -> dict[str, str]:
    """Return the headers that tell how old an answer is, none when it has all up to its request."""
    stale_s = reading.stale_s
    return {} if stale_s is None else {"Age": f"{stale_s:.0f}", STALENESS: f"{stale_s:.3f}"}


class Call:
    """A request of somebody we know."""

    def __init__(self, request: Request) -> None:
        self.request: Final = request
        self.services: Final[Services] = request.app.state.services
        self.base: Final[str] = request.scope[BASE]
        self.identity: Final[Identity] = request.scope[IDENTITY]
        self.correlation_id: Final[str] = request.scope[correlation.KEY]
        self.reading: Reading = request.scope[READING]

    @property
    def view(self) -> View:
        """What the request is answered from: all that was committed before it came."""
        return self.reading.view

    async def read_again(self) -> View:
        """Return all that was committed before now, e.g. by the request itself."""
        self.reading = await self.services.reads.take(old_ok=self.request.method in READING_METHODS)
        return self.reading.view

    def id_of(self, name: str = "id") -> UUID:
        """Return an identity out of the path; what is none names nothing."""
        try:
            return uuid(self.request.path_params[name])
        except ValueError as error:
            raise NotFound("there is no such thing") from error

    def text(self, name: str) -> str:
        """Return a parameter of the query, empty if absent."""
        return self.request.query_params.get(name, "").strip()

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a parameter of the query that is true or false."""
        text = self.text(name).lower()
        return default if not text else text in ("true", "1", "yes", "")

    def number(self, name: str) -> int | None:
        """Return a parameter of the query that is a number; below zero it counts as absent."""
        text = self.text(name)
        if not text:
            return None
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal()):
            raise Invalid(f"The parameter {name} is not a number")
        return None if text.startswith("-") else int(digits[:18])

    async def body(self, name: str) -> Document:
        """Return the document that was sent, whose outermost element is `name`."""
        return await media.body(self.request, name)

    def answer(
        self,
        name: str,
        document: Document,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Return a document as the client wants it."""
        return media.answer(self.request, name, document, status, self._aged(headers))

    async def answer_all(self, many: str, one: str, documents: list[Document]) -> Response:
        """Return a collection; a long one is written in a thread, or no heart would beat here."""
        collection: Document = {one: documents}
        if len(documents) < _LONG:
            return self.answer(many, collection)
        return await asyncio.to_thread(self.answer, many, collection)

    async def answer_rows(self, shape: Shape, path: str, rows: Sequence[object]) -> Response:
        """Return a collection of rows, each encoded once for all requests."""
        as_json = media.asks_json(self.request)
        fragments = await self.services.fragments.of(
            shape, rows, path=path, base=self.base, as_json=as_json
        )
        return media.answer_collection(
            self.request, shape.many, shape.one, fragments, self._aged(None)
        )

    async def submission(
        self, command: str, subject_id: UUID | None, params: dict[str, Any]
    ) -> Submission:
        """Return a command to submit; without a subject it makes a new one.

        The same Idempotency-Key with the same request gives the same command and subject.
        """
        command_id = await self._command_id()
        return Submission(
            name=command,
            subject_id=subject_id or derived_id(command_id, "subject"),
            params=params,
            user_name=self.identity.name,
            correlation_id=self.correlation_id,
            command_id=command_id,
        )

    def _aged(self, headers: dict[str, str] | None) -> dict[str, str]:
        return {**(headers or {}), **age_of(self.reading)}

    async def _command_id(self) -> UUID:
        key = self.request.headers.get("idempotency-key")
        if key is None:
            return new_id()
        if not 0 < len(key) <= _KEY_LIMIT:
            raise Invalid(f"An Idempotency-Key has 1 to {_KEY_LIMIT} characters")
        body = hashlib.sha256(await self.request.body()).hexdigest()
        path, query = self.request.scope["path"], self.request.url.query
        return derived_id(self.identity.user_id, key, self.request.method, path, query, body)

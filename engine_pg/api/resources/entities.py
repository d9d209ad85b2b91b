"""Any resource over HTTP: list, read, add, change, remove, and what lies below an entity."""

from __future__ import annotations

from typing import Any, Final, Generic
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.call import Call
from engine_pg.api.follow import answered, followed
from engine_pg.api.resources import lookups
from engine_pg.api.resources.actions import concluded, earlier
from engine_pg.api.resources.resource import N, Resource
from engine_pg.api.search.conditions import listing
from engine_pg.api.types.empty import element_of, is_part
from engine_pg.api.wire.document import Document
from engine_pg.api.wire.shape import Form
from engine_pg.commands.rows import Submission
from engine_pg.errors import Conflict, Invalid, NotFound

LIST_LIMIT: Final = 10_000


class Entities(Generic[N]):
    """The endpoints of one resource."""

    def __init__(self, resource: Resource[N]) -> None:
        self.resource: Final = resource

    async def listed(self, request: Request) -> Response:
        """Answer with the entities that a search finds."""
        call = Call(request)
        found = listing(
            self.resource.searchable,
            call.text("search"),
            exact_case=call.flag("case_sensitive", default=False),
            limit=call.number("max"),
            bound=LIST_LIMIT,
        )
        rows = await found.of(call.view)
        return await answered(call, self.resource.shape, self.resource.path, rows)

    async def read(self, request: Request) -> Response:
        """Answer with one entity."""
        call = Call(request)
        return call.answer(self.resource.shape.one, self._document(call, call.id_of()))

    async def add(self, request: Request) -> Response:
        """Add an entity and answer with it."""
        call, shape = Call(request), self.resource.shape
        submission = await earlier(call) or await self._addition(call)
        await concluded(call, submission, self.resource.add_until)
        await call.read_again()
        document = self._document(call, submission.subject_id)
        return call.answer(shape.one, document, 201, {"Location": document["href"]})

    async def update(self, request: Request) -> Response:
        """Change what is given of an entity and answer with it."""
        call, shape = Call(request), self.resource.shape
        id_ = call.id_of()
        submission = await earlier(call) or await self._change(call, id_)
        if submission is not None:
            await concluded(call, submission, "final")
            await call.read_again()
        return call.answer(shape.one, self._document(call, id_))

    async def remove(self, request: Request) -> Response:
        """Remove an entity."""
        call = Call(request)
        id_ = call.id_of()
        submission = await earlier(call)
        if submission is None:
            named = {"name": lookups.there(call.view, self.resource.kind, id_).name}
            submission = call.submission(f"remove_{self.resource.subject}", id_, named)
        await concluded(call, submission, "final")
        return call.answer("action", {"status": "complete"})

    async def part(self, request: Request) -> Response:
        """Answer with a collection below an entity."""
        call = Call(request)
        many, one, documents = self._part(call)
        return call.answer(many, {one: documents})

    async def part_member(self, request: Request) -> Response:
        """Answer with one member of a collection below an entity."""
        call = Call(request)
        _, one, documents = self._part(call)
        wanted = request.path_params["part_id"]
        document = next((d for d in documents if d["id"] == wanted), None)
        if document is None:
            raise NotFound("there is no such thing")
        return call.answer(one, document)

    async def _addition(self, call: Call) -> Submission:
        shape = self.resource.shape
        form = shape.form(await call.body(shape.one))
        shape.require(form, *self.resource.mandatory)
        params = dict(self.resource.defaults) | self._parameters(call, form)
        params |= {
            name: call.flag(name, default=default) for name, default in self.resource.flags.items()
        }
        return call.submission(f"add_{self.resource.subject}", None, params)

    async def _change(self, call: Call, id_: UUID) -> Submission | None:
        """Return the command that a request for a change becomes; None: nothing is given."""
        shape = self.resource.shape
        form = shape.form(await call.body(shape.one))
        if form.get("name") == "":
            raise Invalid(f"{shape.one.capitalize()}: element name is empty")
        params = self._parameters(call, form)
        row = lookups.there(call.view, self.resource.kind, id_)
        self._check_unmoved(row, params)
        return call.submission(f"update_{self.resource.subject}", id_, params) if params else None

    def _part(self, call: Call) -> tuple[str, str, list[Document]]:
        rel, id_ = call.request.path_params["part"], call.id_of()
        if not is_part(self.resource.path, rel, self.resource.shape.links):
            raise NotFound("there is no such collection")
        lookups.there(call.view, self.resource.kind, id_)
        part = self.resource.parts.get(rel)
        if part is None:
            return element_of(self.resource.path, rel), "", []
        documents = part.load(call.view, call.base, [id_]).get(id_, [])
        followed(call, documents)
        return part.many, part.one, documents

    def _parameters(self, call: Call, form: Form) -> dict[str, Any]:
        """Return a form as a command's parameters, references looked up."""
        params = self.resource.shape.parameters(form)
        for key, lookup in self.resource.lookups.items():
            if key in params:
                params[key] = str(lookup(call.view, params[key]))
        return params

    def _check_unmoved(self, row: N, params: dict[str, Any]) -> None:
        for key in self.resource.lookups:
            if key in params and params.pop(key) != str(getattr(row, key)):
                element = key.removesuffix("_id").replace("_", " ")
                raise Conflict(f"{row.name} cannot be moved to another {element}")

    def _document(self, call: Call, id_: UUID) -> Document:
        row = lookups.there(call.view, self.resource.kind, id_)
        document = self.resource.shape.document(row, call.base, self.resource.path)
        followed(call, [document])
        return document

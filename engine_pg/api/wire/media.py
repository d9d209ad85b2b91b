"""Which format a request is in and which one its answer takes: XML unless JSON is asked for."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from engine_pg.api.wire import json, xml
from engine_pg.api.wire.document import Document
from engine_pg.errors import Invalid

_XML_TYPES: Final = (xml.MEDIA_TYPE, "text/xml")
_EMPTY: Final[Document] = {}


def _ranked(accept: str) -> list[str]:
    """Return the media types of an Accept header, the most wanted first."""
    wanted: list[tuple[float, str]] = []
    for part in accept.split(","):
        type_, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            wanted.append((-float(quality), type_.lower()))
        except ValueError:
            continue
    return [type_ for _, type_ in sorted(wanted, key=lambda pair: pair[0])]


def wants_json(headers: Headers, accept: str | None = None) -> bool:
    """Return whether the answer should be JSON; `accept` is the parameter of that name."""
    if accept:
        return accept.lower() in ("json", json.MEDIA_TYPE)
    known = (*_XML_TYPES, json.MEDIA_TYPE, "*/*", "application/*")
    first = next((t for t in _ranked(headers.get("accept", "")) if t in known), "*/*")
    return first == json.MEDIA_TYPE


def asks_json(request: Request) -> bool:
    """Return whether the answer to a request should be JSON."""
    return wants_json(request.headers, request.query_params.get("accept"))


def answer(
    request: Request,
    name: str,
    document: Document,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a document in the format that the request asks for."""
    format_ = json if asks_json(request) else xml
    body = format_.written(name, document)
    # The SDK refuses anything behind the type but a parameter; UTF-8 is XML's default.
    return Response(body, status, headers, media_type=format_.MEDIA_TYPE)


def answer_collection(
    request: Request,
    many: str,
    one: str,
    fragments: list[bytes],
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a collection whose members are in the format already that the request asks for."""
    format_ = json if asks_json(request) else xml
    body = format_.collection(many, one, fragments)
    return Response(body, 200, headers, media_type=format_.MEDIA_TYPE)


async def body(request: Request, name: str) -> Document:
    """Return the document of a request, whose outermost element must have that name."""
    content = await request.body()
    type_ = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not content.strip():
        return _EMPTY
    if type_ == json.MEDIA_TYPE:
        return json.read(content)
    if type_ and type_ not in _XML_TYPES:
        raise Invalid(f"Content-Type {type_} is neither {xml.MEDIA_TYPE} nor {json.MEDIA_TYPE}")
    found, document = xml.read(content)
    if found != name:
        raise Invalid(f"An element <{name}> is expected, not <{found}>")
    return document

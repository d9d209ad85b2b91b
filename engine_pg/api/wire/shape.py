"""The shape of a type: one table, element by element, that both directions are driven by.

Each line of a table says where an element's value comes from and where it goes:

    given     a column, both ways: read from the row, sent to the command as that parameter
    accepted  in only: sent to the command as a parameter, never shown
    shown     out only: a column or a function of the row (`filled`: unless empty; `constant`)
    kept      of no use to the engine; what a client gives stands in `attrs` and is echoed

Paths of nested elements are joined by "/".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from engine_pg.api.wire.document import Document, is_document
from engine_pg.api.wire.kinds import Kind
from engine_pg.errors import Invalid

Form = dict[str, Any]
Source = Callable[[Any], Any]


class Incomplete(Invalid):
    """A mandatory element is missing."""


@dataclass(frozen=True, slots=True)
class Element:
    """One line of a table."""

    path: str
    kind: Kind
    source: Source | None = None
    parameter: str | None = None
    kept: bool = False

    @property
    def accepts(self) -> bool:
        """Return whether a client may give it."""
        return self.kept or self.parameter is not None


def _column(name: str) -> Source:
    return lambda row: getattr(row, name)


def given(path: str, kind: Kind, column: str | None = None) -> Element:
    """Return an element that is a column of the row, both ways."""
    name = column or path
    return Element(path, kind, _column(name), name)


def accepted(path: str, kind: Kind, parameter: str) -> Element:
    """Return an element that is only ever read."""
    return Element(path, kind, None, parameter)


def shown(path: str, kind: Kind, source: str | Source) -> Element:
    """Return an element that is only ever written: a column's name or a function of the row."""
    return Element(path, kind, _column(source) if isinstance(source, str) else source)


def filled(path: str, kind: Kind, column: str) -> Element:
    """Return an element that is only written, and only when its column is neither empty nor 0."""
    return Element(path, kind, lambda row: getattr(row, column) or None)


def constant(path: str, kind: Kind, value: object) -> Element:
    """Return an element that always says the same."""
    return Element(path, kind, lambda row: value)  # noqa: ARG005  # the same for each row


def kept(path: str, kind: Kind, default: object | Source = None) -> Element:
    """Return an element that is stored in `attrs` and echoed; `default` until somebody gives it."""

    def source(row: Any) -> Any:  # noqa: ANN401  # rows of any table
        value = row.attrs.get(path)
        if value is not None:
            return value
        return default(row) if callable(default) else default

    return Element(path, kind, source, None, kept=True)


class Shape:
    """The table of one type, with its element names, its id column and its sub-collections."""

    def __init__(
        self, one: str, many: str, id_column: str, *elements: Element, links: Sequence[str] = ()
    ) -> None:
        self.one: Final = one
        self.many: Final = many
        self.id_column: Final = id_column
        self.elements: Final = elements
        self.links: Final = tuple(links)
        self._references = {e.path for e in elements if e.kind.name == "reference"}
        self._written = [
            (element.path.split("/"), element.kind.write, element.source)
            for element in elements
            if element.source is not None
        ]

    def document(self, row: object, base: str, path: str) -> Document:
        """Return the document of a row whose collection is at `path`."""
        id_ = getattr(row, self.id_column)
        href = f"{base}/{path}/{id_}"
        document: Document = {"id": str(id_), "href": href}
        for steps, write, source in self._written:
            value = source(row)
            if value is not None:
                _put(document, steps, write(value, base))
        if self.links:
            document["link"] = [{"rel": rel, "href": f"{href}/{rel}"} for rel in self.links]
        return document

    def form(self, document: Document) -> Form:
        """Return the accepted elements of a document by path, checked; others are ignored."""
        form: Form = {}
        for element in self.elements:
            if not element.accepts:
                continue
            raw = _at(document, element.path)
            if raw is None:
                continue
            try:
                form[element.path] = element.kind.parse(raw)
            except ValueError as error:
                raise Invalid(f"{self.one.capitalize()}: element {element.path} {error}") from error
        return form

    def parameters(self, form: Form) -> dict[str, Any]:
        """Return a form as a command's parameters; what is only kept stands under `attrs`."""
        parameters: dict[str, Any] = {}
        attrs: dict[str, Any] = {}
        for element in self.elements:
            if element.path not in form:
                continue
            if element.kept:
                attrs[element.path] = form[element.path]
            else:
                parameters[cast("str", element.parameter)] = form[element.path]
        return parameters | {"attrs": attrs} if attrs else parameters

    def require(self, form: Form, *paths: str) -> None:
        """Raise Invalid, in oVirt's words, when a mandatory element is missing or empty."""
        missing = [path for path in paths if form.get(path) in (None, "")]
        if missing:
            names = ", ".join(f"{p}.id|name" if p in self._references else p for p in missing)
            raise Incomplete(f"{self.one.title().replace('_', '')} [{names}] required for add")


def _put(document: Document, steps: list[str], value: object) -> None:
    target = document
    for step in steps[:-1]:
        target = target.setdefault(step, {})
    target[steps[-1]] = value


def _at(document: Document, path: str) -> Any:  # noqa: ANN401  # of anything
    value: Any = document
    for step in path.split("/"):
        if not is_document(value):
            return None
        value = cast("Mapping[str, Any]", value).get(step)
    return value

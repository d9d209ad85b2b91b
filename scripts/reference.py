#!/usr/bin/env python
"""Writes into docs/reference what follows from the code: `make reference`.

Between its marks a page is the code's; around them it is written by hand. A test compares, so that
neither settings nor commands outgrow their pages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import typer
from pydantic import SecretStr
from typer.core import TyperGroup
from typer.testing import CliRunner
from typing_extensions import override

from engine_pg.api.search import inventory
from engine_pg.cli import main
from engine_pg.configuration.definition import NAMES, bounds_of, field_of
from engine_pg.errors import Invalid
from engine_pg.formation import profiles
from engine_pg.settings import PREFIX, Settings, load_settings

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "reference"
PAGES: Final = ("settings.md", "cli.md", "rest.md")
_BOUNDS: Final = (("above", "exclusiveMinimum"), ("from", "minimum"), ("to", "maximum"))
_SEARCHABLE: Final = {
    "data centers": inventory.DATA_CENTERS,
    "clusters": inventory.CLUSTERS,
    "hosts": inventory.HOSTS,
    "VMs": inventory.VMS,
    "templates": inventory.TEMPLATES,
    "events": inventory.EVENTS,
}
_MARKED: Final = re.compile(
    r"(<!-- from the code: (\w+); `make reference` writes it -->\n).*?(<!-- until here -->)",
    re.DOTALL,
)


class _Asked(dict[str, Any]):
    """Settings by name, which remembers the ones that a default was made from."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__(known)
        self.names: list[str] = []

    @override
    def __getitem__(self, name: str) -> Any:
        self.names.append(name)
        return super().__getitem__(name)


def _variable(name: str) -> str:
    return f"`{PREFIX}{name.upper()}`"


def _plain(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _default(name: str, known: dict[str, Any]) -> str:
    """Return how a default is shown; it joins the defaults of the fields before, `known`."""
    field = Settings.model_fields[name]
    if field.is_required():
        return "needed"
    if field.default_factory is None:
        known[name] = field.default
        return "" if field.default is None else f"`{_plain(field.default)}`"
    if not field.default_factory_takes_validated_data:
        return "differs by machine and process"
    asked = _Asked(known)
    make: Callable[..., Any] = field.default_factory
    known[name] = make(asked)
    follows = ", ".join(_variable(each) for each in dict.fromkeys(asked.names))
    return f"`{_plain(known[name])}`, follows {follows}"


def _range(name: str) -> str:
    field = Settings.model_fields[name]
    schema = Settings.model_json_schema()["properties"][name]
    if words := get_args(field.annotation):
        choices = all(isinstance(word, str) for word in words)
        other = "" if SecretStr in words else "a file"
        return ", ".join(f"`{word}`" for word in words) if choices else other
    if pattern := schema.get("pattern"):
        return f"`{pattern}`"
    return " ".join(f"{word} {_plain(schema[key])}" for word, key in _BOUNDS if key in schema)


def settings() -> Iterator[str]:
    """Yield a table of all settings."""
    yield "| variable | default | range | what for |"
    yield "|---|---|---|---|"
    known: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        default = _default(name, known)
        yield f"| {_variable(name)} | {default} | {_range(name)} | {field.description} |"


def cluster_settings() -> Iterator[str]:
    """Yield a table of all cluster settings."""
    yield "| name | default | range | what for |"
    yield "|---|---|---|---|"
    for name in NAMES:
        field, bounds = field_of(name), bounds_of(name)
        words = [f"`{word}`" for word in bounds.get("enum", ())]
        span = (
            ", ".join(words) or f"from {_plain(bounds['minimum'])} to {_plain(bounds['maximum'])}"
        )
        yield f"| `{name}` | `{_plain(field.default)}` | {span} | {field.description} |"


def contradictions() -> Iterator[str]:
    """Yield what is refused together: all of it is asked for at once."""
    try:
        load_settings(
            database_url="postgresql://engine@db.example.com/engine",
            lease_ttl_s=1,
            lease_margin_s=1,
            heartbeat_s=1,
            pool_min=3,
            pool_max=2,
            tls_key=__file__,
        )
    except Invalid as told:
        _, *sentences = str(told).splitlines()
        yield from (f"- {sentence.strip()}" for sentence in sentences)


def commands() -> Iterator[str]:
    """Yield what each command says about itself when it is asked for help."""
    yield from _help(())
    for name in main.COMMANDS:
        group = typer.main.get_group(main.loaded(name))
        for words in _calls((name,), group.commands[name]):
            yield from _help(words)


def _calls(words: tuple[str, ...], command: object) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from _calls((*words, name), inner)


def _help(words: tuple[str, ...]) -> Iterator[str]:
    asked = [*words, "--help"]
    answer = CliRunner().invoke(main.app, asked, prog_name="engine-pg", env={"COLUMNS": "80"})
    yield from ("", f"### {' '.join(('engine-pg', *words))}", "")
    yield from ("```", answer.output.strip(), "```")


def search() -> Iterator[str]:
    """Yield a table of what each collection can be searched for."""
    yield "| collection | fields | fields of other objects, as `object.field` |"
    yield "|---|---|---|"
    for collection, searchable in _SEARCHABLE.items():
        fields, related = (
            ", ".join(f"`{name}`" for name in names)
            for names in (searchable.fields, searchable.related)
        )
        yield f"| {collection} | {fields} | {related} |"


def formation() -> Iterator[str]:
    """Yield a table of what the parts of a formation are told."""
    yield "| who | setting | without us | `fast` | `safe` | why |"
    yield "|---|---|---|---|---|---|"
    parts = (
        ("monitor", profiles.MONITOR),
        ("keepers", profiles.KEEPER),
        ("servers", profiles.NODE),
    )
    for who, settings in parts:
        for each in settings:
            values = f"{each.without_us} | {each.fast} | {each.safe}"
            yield f"| {who} | `{each.name}` | {values} | {each.reason} |"


PARTS: Final[Mapping[str, Callable[[], Iterator[str]]]] = {
    "settings": settings,
    "cluster_settings": cluster_settings,
    "contradictions": contradictions,
    "commands": commands,
    "search": search,
    "formation": formation,
}


def written(page: str) -> str:
    """Return the text of a page with what follows from the code in place."""

    def part(found: re.Match[str]) -> str:
        opening, name, closing = found.groups()
        text = "\n".join(PARTS[name]()).strip()
        return f"{opening}\n{text}\n\n{closing}"

    return _MARKED.sub(part, page)


if __name__ == "__main__":
    for name in PAGES:
        page = FOLDER / name
        page.write_text(written(page.read_text()))

"""The search language: read as oVirt reads it, never crashing, whatever is searched for."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_pg.api.search import inventory
from engine_pg.api.search.conditions import Searchable, listing
from engine_pg.api.search.fields import like
from engine_pg.api.search.grammar import Comparison, Joined, Search, Text, parsed
from engine_pg.errors import Invalid
from engine_pg.inventory.rows import Event, Vm
from engine_pg.replica.inventory import INVENTORY
from engine_pg.replica.view import View, ViewDraft

SEARCHABLES = [
    inventory.DATA_CENTERS,
    inventory.CLUSTERS,
    inventory.HOSTS,
    inventory.VMS,
    inventory.TEMPLATES,
    inventory.EVENTS,
]
A, B, C = Text("a"), Text("b"), Text("c")


NOBODY = UUID(int=7)
VM = Vm(
    vm_id=UUID(int=1), cluster_id=NOBODY, name="a_%\\b", created_at=datetime(2026, 1, 1, tzinfo=UTC)
)
EVENT = Event(event_id=1, code=2, severity="normal", at=VM.created_at, description="host.vm.name=x")


def viewed(*rows: Vm | Event) -> View:
    draft = ViewDraft(INVENTORY)
    for row in rows:
        table = next(table for table in INVENTORY if table.kind is type(row))
        draft.of(table).put(str(id(row)), row)
    return draft.freeze(datetime(2026, 6, 1, tzinfo=UTC), 1)


SMALL = viewed(VM, EVENT)


def search(searchable: Searchable, text: str) -> list[object]:
    found = listing(searchable, text, exact_case=False, limit=10, bound=1000)
    return asyncio.run(found.of(SMALL))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a", A),
        ("a b", Joined("and", (A, B))),
        ("a AND b", Joined("and", (A, B))),
        ("a or b and c", Joined("or", (A, Joined("and", (B, C))))),
        ("a b OR c", Joined("or", (Joined("and", (A, B)), C))),
        ("(a or b) c", Joined("and", (Joined("or", (A, B)), C))),
        ("name=x", Comparison("name", "=", "x")),
        ("NAME != x", Comparison("name", "!=", "x")),
        ('name="x y"', Comparison("name", "=", "x y")),
        ('name=""', Comparison("name", "=", "")),
        ("host.name=x*", Comparison("host.name", "=", "x*")),
        ("memory>=10", Comparison("memory", ">=", "10")),
        ("memory >10", Comparison("memory", ">", "10")),
        ("name=or", Comparison("name", "=", "or")),
        ("page=3", Comparison("page", "=", "3")),
        ('"a and b"', Text("a and b")),
        ("hello!", Text("hello!")),
        (
            "(status = up OR status=down)",
            Joined("or", (Comparison("status", "=", "up"), Comparison("status", "=", "down"))),
        ),
    ],
)
def test_conditions_are_read(text, where):
    assert parsed(text) == Search(where)


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("", Search()),
        ("   ", Search()),
        ("page 3", Search(page=3)),
        ("sortby name", Search(sort_field="name")),
        (
            "a SORTBY Name DESC PAGE 2",
            Search(A, sort_field="name", descending=True, page=2),
        ),
        ("sortby name asc page 1", Search(sort_field="name")),
    ],
)
def test_order_and_page_are_read(text, search):
    assert parsed(text) == search


@pytest.mark.parametrize(
    "text",
    [
        "name=", "=x", "name==x", "(a", "a)", "()", "a or", "or", "and a", 'name="x', "page 0",
        "page x", "page -1", "page", "sortby", "a page 1 b", "name='x'", "a; drop table vm",
        "a\x00b", "(" * 30 + "a" + ")" * 30, "a " * 300, "a" * 10_000, "page 99999999999999",
    ],
)  # fmt: skip
def test_what_is_no_search_is_refused(text):
    with pytest.raises(Invalid):
        parsed(text)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        parsed(text)
    except Invalid:
        return


words = st.sampled_from(
    [
        "name", "status", "memory", "id", "time", "host.name", "vm.name", "datacenter", "tag",
        "and", "or", "sortby", "page", "desc", "(", ")", "=", "!=", ">", "<=", "*", "up", "1",
        "17x", "today", "2026-01-01", '"quoted text"', "x%_\\", "999999999999", "é", "ÿ*",
    ]
)  # fmt: skip


@given(st.sampled_from(SEARCHABLES), st.lists(words, max_size=12))
def test_any_sequence_of_words_is_a_search_or_refused(searchable, sequence):
    try:
        search(searchable, " ".join(sequence))
    except Invalid:
        return


values = st.text(st.characters(blacklist_characters="\"';*", blacklist_categories=("Cs", "Cc")))


@given(values, values)
def test_a_value_matches_itself_alone(value, other):
    matches = like(value, exact_case=True)
    assert matches(value)
    assert matches(other) == (value == other)
    assert like(value, exact_case=True, anywhere=True)(f"{other}{value}{other}")
    assert like(f"{value}*", exact_case=True)(value + other)


def test_a_star_is_the_only_wildcard():
    assert search(inventory.VMS, r"name=a_%\*") == [VM]
    assert search(inventory.VMS, r"name=a__\*") == []
    assert search(inventory.VMS, "name=a*b") == [VM]


def test_a_star_costs_no_more_than_the_text_is_long():
    slow = like("*".join("a" * 2000), exact_case=True)
    assert not slow("a" * 1999 + "b" * 100_000)


def test_a_path_through_two_tables_is_free_text():
    assert search(inventory.EVENTS, "host.vm.name=x") == [EVENT]


@pytest.mark.parametrize(
    "text", ["memory=much", "status>up", "time=soon", "sortby unheard_of", "sortby tag", "name<a"]
)
def test_a_condition_that_makes_no_sense_is_refused(text):
    with pytest.raises(Invalid):
        search(inventory.EVENTS if "time" in text else inventory.VMS, text)


def test_a_page_is_as_long_as_the_limit():
    found = listing(inventory.VMS, "page 3", exact_case=False, limit=7, bound=1000)
    assert (found.limit, found.offset) == (7, 14)
    found = listing(inventory.VMS, "page 2", exact_case=False, limit=None, bound=1000)
    assert (found.limit, found.offset) == (100, 100)


def test_no_limit_is_the_bound():
    assert listing(inventory.VMS, "", exact_case=False, limit=None, bound=9).limit == 9
    assert listing(inventory.VMS, "", exact_case=False, limit=99, bound=9).limit == 9

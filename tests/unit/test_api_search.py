"""The search language: read as oVirt reads it, never crashing, never getting into the SQL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from engine_pg.api.search import inventory
from engine_pg.api.search.conditions import Searchable, listing
from engine_pg.api.search.grammar import Comparison, Joined, Search, Text, parsed
from engine_pg.db.tx import compiled
from engine_pg.errors import Invalid

SEARCHABLES = [
    inventory.DATA_CENTERS,
    inventory.CLUSTERS,
    inventory.HOSTS,
    inventory.VMS,
    inventory.TEMPLATES,
    inventory.EVENTS,
]
A, B, C = Text("a"), Text("b"), Text("c")


def sql(searchable: Searchable, text: str) -> tuple[str, dict[str, object]]:
    found = listing(searchable, text, exact_case=False, limit=10, bound=1000)
    query = select(searchable.table).order_by(*found.order).limit(found.limit).offset(found.offset)
    return compiled(query if found.where is None else query.where(found.where), None)


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
def test_any_sequence_of_words_becomes_sql_or_is_refused(searchable, sequence):
    try:
        sql(searchable, " ".join(sequence))
    except Invalid:
        return


values = st.text(st.characters(blacklist_characters="\"';*", blacklist_categories=("Cs", "Cc")))


@given(st.sampled_from(SEARCHABLES), st.sampled_from(["name", "unheard.of", "description"]), values)
def test_a_value_never_gets_into_the_sql(searchable, field, value):
    text, _ = sql(searchable, f'{field}="harmless"')
    other, parameters = sql(searchable, f'{field}="{value}" "{value}"')
    assert other.startswith(text[: text.index("WHERE")])
    assert sql(searchable, f'{field}="{value}"')[0] == text
    assert any(
        value.lower() in str(bound).lower().replace("\\", "") for bound in parameters.values()
    ) or ("\\" in value)


def test_a_star_is_the_only_wildcard():
    _, parameters = sql(inventory.VMS, r"name=a_%\*")
    assert r"a\_\%\\%" in parameters.values()


def test_a_search_names_things_of_other_tables():
    text, parameters = sql(inventory.VMS, 'host.name="h1" and datacenter=d1')
    assert "EXISTS (SELECT 1 \nFROM host" in text
    assert "data_center.name" in text
    assert {"h1", "d1"} <= set(parameters.values())


def test_a_path_through_two_tables_is_free_text():
    _, parameters = sql(inventory.VMS, "host.vm.name=x")
    assert "%host.vm.name=x%" in parameters.values()


@pytest.mark.parametrize(
    "text", ["memory=much", "status>up", "time=soon", "sortby unheard_of", "sortby tag", "name<a"]
)
def test_a_condition_that_makes_no_sense_is_refused(text):
    with pytest.raises(Invalid):
        sql(inventory.EVENTS if "time" in text else inventory.VMS, text)


def test_a_page_is_as_long_as_the_limit():
    found = listing(inventory.VMS, "page 3", exact_case=False, limit=7, bound=1000)
    assert (found.limit, found.offset) == (7, 14)
    found = listing(inventory.VMS, "page 2", exact_case=False, limit=None, bound=1000)
    assert (found.limit, found.offset) == (100, 100)


def test_no_limit_is_the_bound():
    assert listing(inventory.VMS, "", exact_case=False, limit=None, bound=9).limit == 9
    assert listing(inventory.VMS, "", exact_case=False, limit=99, bound=9).limit == 9

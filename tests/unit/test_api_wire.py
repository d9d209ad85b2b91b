"""What goes over the wire comes back as it was, and what is dangerous does not come in."""

from __future__ import annotations

import json as stdlib_json
from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_pg.api.types.cluster import CLUSTER
from engine_pg.api.types.data_center import DATA_CENTER
from engine_pg.api.types.host import HOST
from engine_pg.api.types.vm import VM
from engine_pg.api.wire import json, kinds, xml
from engine_pg.api.wire.document import ILLEGAL, legal
from engine_pg.api.wire.kinds import Reference
from engine_pg.api.wire.shape import Incomplete
from engine_pg.errors import Invalid
from engine_pg.inventory.rows import Cluster, DataCenter, Host, Vm

BASE = "/ovirt-engine/api"
texts = st.text().filter(lambda text: not ILLEGAL.search(text))
names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("id", "href", "rel")
)
# An empty group and an empty text look alike in XML, and so does a list of one and its member.
leaves = st.one_of(texts, st.lists(texts, min_size=2, max_size=4))
documents = st.recursive(
    st.dictionaries(names, leaves, min_size=1, max_size=4),
    lambda inner: st.dictionaries(names, st.one_of(leaves, inner), min_size=1, max_size=4),
    max_leaves=12,
)


@given(documents, texts)
def test_a_document_written_as_xml_reads_the_same(document, id_):
    document["id"] = id_
    assert xml.read(xml.written("thing", document)) == ("thing", document)


@given(st.text())
def test_what_xml_cannot_carry_is_left_out_of_it(text):
    _, document = xml.read(xml.written("thing", {"id": text, "name": text}))
    assert document == {"id": legal(text), "name": legal(text)}


def test_nothing_is_left_out_and_an_empty_text_is_written_in_full():
    written = xml.written("vm", {"id": "1", "description": "", "host": None, "tags": {}})
    assert written.endswith(b'<vm id="1"><description></description><tags/></vm>')


def test_values_are_written_as_ovirt_writes_them():
    at = datetime(2026, 11, 22, 7, 59, 21, 104_999, timezone(timedelta(hours=1)))
    written = xml.written("x", {"b": True, "c": False, "i": 1 << 40, "d": 0.5, "t": at})
    assert written.endswith(
        b"<x><b>true</b><c>false</c><i>1099511627776</i><d>0.5</d>"
        b"<t>2026-11-22T06:59:21.104Z</t></x>"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE vm><vm/>",
        b'<!DOCTYPE vm [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><vm><name>&b;</name></vm>',
        b'<!DOCTYPE vm SYSTEM "file:///etc/passwd"><vm/>',
        b"<vm><name>&unknown;</name></vm>",
        b"<vm><name></vm>",
        b"<vm/><vm/>",
        b"no xml at all",
        b"\x00\xff",
        b"<vm><name>\x01</name></vm>",
        b'<?xml version="1.0" encoding="utf-99"?><vm/>',
        b"<vm>" * 40 + b"</vm>" * 40,
        b"<vm>" + b"<a/>" * 30_000 + b"</vm>",
    ],
)
def test_dangerous_or_broken_xml_is_refused(body):
    with pytest.raises(Invalid):
        xml.read(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    for read in (xml.read, json.read):
        try:
            read(body)
        except Invalid:
            continue


@pytest.mark.parametrize("body", [b"[]", b"1", b"{", b'{"a":' * 100 + b"1" + b"}" * 100, b"\xff"])
def test_json_that_is_no_document_is_refused(body):
    with pytest.raises(Invalid):
        json.read(body)


def test_json_carries_numbers_and_booleans_as_text_and_dates_as_milliseconds():
    at = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    written = stdlib_json.loads(
        json.written("x", {"i": 1, "b": True, "t": at, "d": 0.5, "n": None, "l": {"e": [1, "a"]}})
    )
    assert written == {"i": "1", "b": "true", "t": 1000, "d": 0.5, "l": {"e": ["1", "a"]}}


ROWS = [
    (DATA_CENTER, DataCenter(data_center_id=uuid4(), name="dc", local=True), "datacenters"),
    (CLUSTER, Cluster(cluster_id=uuid4(), data_center_id=uuid4(), name="c"), "clusters"),
    (HOST, Host(host_id=uuid4(), cluster_id=uuid4(), name="h", address="10.0.0.1"), "hosts"),
    (VM, Vm(vm_id=uuid4(), cluster_id=uuid4(), name="v", memory_bytes=3 << 30), "vms"),
]


@pytest.mark.parametrize(("shape", "row", "path"), ROWS, ids=[shape.one for shape, *_ in ROWS])
@pytest.mark.parametrize("format_", [xml, json])
def test_what_a_client_sends_back_unchanged_means_what_the_row_says(shape, row, path, format_):
    written = format_.written(shape.one, shape.document(row, BASE, path))
    read = format_.read(written)
    form = shape.form(read[1] if format_ is xml else read)
    parameters = shape.parameters(form)
    attrs = parameters.pop("attrs")
    for name, value in parameters.items():
        expected = getattr(row, name)
        assert value == (Reference(expected, None) if name.endswith("_id") else expected)
    again = type(row)(**{n: getattr(row, n) for n in row.__dataclass_fields__} | {"attrs": attrs})
    assert shape.document(again, BASE, path) == shape.document(row, BASE, path)


def test_what_the_engine_does_not_use_is_kept_and_echoed():
    sent = b"<vm><memory_policy><guaranteed>5</guaranteed></memory_policy><os><boot><devices>\
<device>network</device></devices></boot></os><initialization><root_password>x</root_password>\
<host_name>h</host_name></initialization><unheard_of>1</unheard_of></vm>"
    parameters = VM.parameters(VM.form(xml.read(sent)[1]))
    assert parameters == {
        "attrs": {
            "memory_policy/guaranteed": 5,
            "os/boot/devices": ["network"],
            "initialization/host_name": "h",
        }
    }
    row = Vm(vm_id=uuid4(), cluster_id=uuid4(), name="v", attrs=parameters["attrs"])
    document = VM.document(row, BASE, "vms")
    assert document["memory_policy"]["guaranteed"] == 5
    assert document["os"]["boot"]["devices"] == {"device": ["network"]}
    assert document["initialization"] == {"host_name": "h"}


@pytest.mark.parametrize(
    "body",
    [
        b"<vm><memory></memory></vm>",
        b"<vm><memory>much</memory></vm>",
        b"<vm><memory>1e30</memory></vm>",
        b"<vm><memory>99999999999999999999999999999999999</memory></vm>",
        b"<vm><memory>5</memory></vm>",
        b"<vm><cpu><topology><cores>0</cores></topology></cpu></vm>",
        b"<vm><delete_protected>perhaps</delete_protected></vm>",
        b"<vm><cluster/></vm>",
        b"<vm><cluster>c1</cluster></vm>",
        b"<vm><cluster id='not-a-uuid'/></vm>",
        b"<vm><name><first>a</first></name></vm>",
        b"<vm><name>a</name><name>b</name></vm>",
        b"<vm><name>" + b"a" * 300 + b"</name></vm>",
    ],
)
def test_a_wrong_value_is_refused_by_the_element_s_name(body):
    with pytest.raises(Invalid, match="Vm: element"):
        VM.form(xml.read(body)[1])


def test_what_is_missing_is_told_in_ovirt_s_words():
    with pytest.raises(Incomplete, match=r"^Vm \[cluster.id\|name\] required for add$"):
        VM.require(VM.form({"name": "a"}), "name", "cluster")


@pytest.mark.parametrize("raw", ["true", "1", True, 1, "TRUE"])
def test_booleans_are_read_in_every_spelling(raw):
    assert kinds.BOOLEAN.parse(raw) is True


@pytest.mark.parametrize("raw", ["\x00", "\ud800", "a\x1b", True, {}, []])
def test_a_text_that_could_not_be_stored_or_echoed_is_refused(raw):
    with pytest.raises(ValueError, match=r"is not|characters"):
        kinds.STRING.parse(raw)


@pytest.mark.parametrize("raw", ["{%s}", "urn:uuid:%s", "%s ", "nil"])
def test_only_a_canonical_uuid_is_an_id(raw):
    text = str(uuid4())
    assert kinds.uuid(text.upper()) == kinds.uuid(text)
    with pytest.raises(ValueError, match="not a UUID"):
        kinds.uuid(raw.replace("%s", text))

"""The domain XML says what was asked, whatever is in a name."""

from uuid import UUID

import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st

from engine_pg.hosts.domain import NAMESPACE, DomainSpec, domain_xml

VM_ID = UUID("aaaaaaaa-0000-0000-0000-000000000001")


def spec(**changes) -> DomainSpec:
    return DomainSpec(**{"vm_id": VM_ID, "name": "vm", "memory_bytes": 2**30, **changes})


def test_it_says_what_the_vm_is_made_of():
    domain = fromstring(domain_xml(spec(sockets=2, cores=3, threads=4, os_type="rhel_9x64")))
    assert domain.findtext("uuid") == str(VM_ID)
    assert domain.findtext("memory") == "1048576"
    assert domain.find("memory").get("unit") == "KiB"
    assert domain.findtext("vcpu") == "24"
    assert domain.find("cpu/topology").attrib == {"sockets": "2", "cores": "3", "threads": "4"}
    assert domain.findtext("os/type") == "hvm"
    assert domain.findtext(f"metadata/{{{NAMESPACE}}}vm/{{{NAMESPACE}}}os_type") == "rhel_9x64"


@pytest.mark.parametrize(("token", "expected"), [(41, "41"), (None, None)])
def test_the_fencing_token_travels_in_the_metadata(token, expected):
    domain = fromstring(domain_xml(spec(fencing_token=token)))
    found = domain.findtext(f"metadata/{{{NAMESPACE}}}vm/{{{NAMESPACE}}}fencing_token")
    assert found == expected


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")))
def test_a_name_comes_back_as_it_was(name):
    assert (fromstring(domain_xml(spec(name=name))).findtext("name") or "") == name


def test_a_name_cannot_become_markup():
    name = "</name><uuid>0</uuid><!-- &amp; ]]>"
    domain = fromstring(domain_xml(spec(name=name)))
    assert domain.findtext("name") == name
    assert domain.findtext("uuid") == str(VM_ID)


def test_what_xml_cannot_say_is_left_out():
    assert fromstring(domain_xml(spec(name="a\0b\x1b\ud800c\uffff"))).findtext("name") == "abc"

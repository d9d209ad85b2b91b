"""What a host reads from libvirt domain XML: identity, name and size of a VM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from engine_pg.errors import Invalid

MAX_XML: Final = 1024 * 1024
_KIB: Final = {"b": 1 / 1024, "k": 1, "m": 1024, "g": 1024**2, "t": 1024**3}


@dataclass(frozen=True, slots=True)
class Domain:
    """The parts of a domain description that the simulated host cares about."""

    vm_id: str
    name: str
    memory_kib: int
    cpus: int


def parse_domain(xml: object) -> Domain:
    """Read a domain description; `Invalid` says what is wrong with it."""
    if not isinstance(xml, str) or len(xml) > MAX_XML:
        raise Invalid(f"no domain XML of at most {MAX_XML} characters")
    try:
        root: Element = defusedxml.ElementTree.fromstring(xml)
        vm_id = str(UUID(root.findtext("uuid", "").strip()))
        memory = root.find("memory")
        return Domain(
            vm_id=vm_id,
            name=root.findtext("name", "").strip() or vm_id,
            memory_kib=0 if memory is None else _kib(memory),
            cpus=int(root.findtext("vcpu", "1")),
        )
    except (ParseError, DefusedXmlException, ValueError, KeyError) as error:
        raise Invalid(f"bad domain XML: {error}") from error


def _kib(memory: Element) -> int:
    return int(int(memory.text or "0") * _KIB[memory.get("unit", "KiB")[:1].lower()])

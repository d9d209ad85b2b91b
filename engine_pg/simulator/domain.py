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
MAX_MEMORY_KIB: Final = 1 << 40
MAX_CPUS: Final = 4096
_BYTES: Final = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


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
        name = root.findtext("name", "").strip() or vm_id
        memory = root.find("memory")
        memory_kib = 0 if memory is None else _kib(memory)
        cpus = int(root.findtext("vcpu", "1"))
    except (ParseError, DefusedXmlException, ValueError, KeyError) as error:
        raise Invalid(f"bad domain XML: {error}") from error
    if not (0 <= memory_kib <= MAX_MEMORY_KIB and 0 < cpus <= MAX_CPUS):
        raise Invalid("bad domain XML: a size that no machine has")
    return Domain(vm_id, name, memory_kib, cpus)


def _kib(memory: Element) -> int:
    return int(memory.text or "0") * _BYTES[memory.get("unit", "KiB")[:1].lower()] // 1024

"""The libvirt domain XML that starts a VM: the little that every hypervisor needs.

Does not promise: disks, networks or consoles; they join when the inventory knows them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, SubElement, register_namespace, tostring

if TYPE_CHECKING:
    from uuid import UUID

NAMESPACE: Final = "urn:engine-pg:vm:1"
"""Of the metadata that the engine leaves with a VM, for whoever finds it without the database."""

_ILLEGAL: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

register_namespace("engine", NAMESPACE)


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """What a VM is made of."""

    vm_id: UUID
    name: str
    memory_bytes: int
    sockets: int = 1
    cores: int = 1
    threads: int = 1
    os_type: str = "other"
    fencing_token: int | None = None  # of the grant under which the VM is started


def domain_xml(vm: DomainSpec) -> str:
    """Return the VM's domain XML."""
    domain = Element("domain", type="kvm")
    _add(domain, "name", vm.name)
    _add(domain, "uuid", str(vm.vm_id))
    metadata = _add(domain, "metadata")
    engine = _add(metadata, _ours("vm"))
    _add(engine, _ours("os_type"), vm.os_type)
    if vm.fencing_token is not None:
        _add(engine, _ours("fencing_token"), str(vm.fencing_token))
    _add(domain, "memory", str(vm.memory_bytes // 1024), unit="KiB")
    _add(domain, "vcpu", str(vm.sockets * vm.cores * vm.threads))
    boot = _add(domain, "os")
    _add(boot, "type", "hvm")
    _add(boot, "boot", dev="hd")
    topology = {"sockets": vm.sockets, "cores": vm.cores, "threads": vm.threads}
    _add(_add(domain, "cpu"), "topology", **{part: str(n) for part, n in topology.items()})
    return tostring(domain, encoding="unicode")


def _ours(tag: str) -> str:
    return f"{{{NAMESPACE}}}{tag}"


def _add(parent: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    element = SubElement(parent, tag, attributes)
    element.text = None if text is None else _ILLEGAL.sub("", text)
    return element

"""The fields of each type that a search can name, under the names that oVirt's clients use."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Text, Uuid, cast, func, literal, select, true

from engine_pg.ids import BLANK_TEMPLATE_ID
from engine_pg.inventory.tables import cluster, data_center, event, host, vm
from oracle.conditions import Related, Searchable
from oracle.fields import (
    Element,
    IdField,
    NumberField,
    TextField,
    UnknownField,
    WordField,
)
from oracle.moments import MomentField

_MIB: Final = 1 << 20
_NOTHING: Final = UnknownField()


def _cluster_name(of: Element) -> TextField:
    name = select(cluster.c.name).where(cluster.c.cluster_id == of)
    return TextField(name.correlate_except(cluster).scalar_subquery())


def _data_center_name(of: Element) -> TextField:
    both = cluster.join(data_center)
    name = select(data_center.c.name).select_from(both).where(cluster.c.cluster_id == of)
    return TextField(name.correlate_except(cluster, data_center).scalar_subquery())


def _host_name(of: Element) -> TextField:
    name = select(host.c.name).where(host.c.host_id == of)
    return TextField(name.correlate_except(host).scalar_subquery())


DATA_CENTERS: Final = Searchable(
    table=data_center,
    fields={
        "id": IdField(data_center.c.data_center_id),
        "name": TextField(data_center.c.name),
        "description": TextField(data_center.c.description),
        "comment": TextField(data_center.c.comment),
        "status": WordField(data_center.c.status),
    },
    related={
        "cluster": Related(
            lambda: CLUSTERS, lambda: cluster.c.data_center_id == data_center.c.data_center_id
        ),
    },
    texts=(data_center.c.name, data_center.c.description, data_center.c.comment),
    order=(func.lower(data_center.c.name),),
)

CLUSTERS: Final = Searchable(
    table=cluster,
    fields={
        "id": IdField(cluster.c.cluster_id),
        "name": TextField(cluster.c.name),
        "description": TextField(cluster.c.description),
        "comment": TextField(cluster.c.comment),
        "architecture": TextField(cluster.c.cpu_architecture),
        "datacenter": TextField(
            select(data_center.c.name)
            .where(data_center.c.data_center_id == cluster.c.data_center_id)
            .correlate_except(data_center)
            .scalar_subquery()
        ),
    },
    related={
        "datacenter": Related(
            lambda: DATA_CENTERS, lambda: cluster.c.data_center_id == data_center.c.data_center_id
        ),
        "host": Related(lambda: HOSTS, lambda: host.c.cluster_id == cluster.c.cluster_id),
        "vm": Related(lambda: VMS, lambda: vm.c.cluster_id == cluster.c.cluster_id),
    },
    texts=(cluster.c.name, cluster.c.description, cluster.c.comment),
    order=(func.lower(cluster.c.name),),
)

HOSTS: Final = Searchable(
    table=host,
    fields={
        "id": IdField(host.c.host_id),
        "name": TextField(host.c.name),
        "address": TextField(host.c.address),
        "description": TextField(host.c.description),
        "comment": TextField(host.c.comment),
        "status": WordField(host.c.status),
        "cluster": _cluster_name(host.c.cluster_id),
        "datacenter": _data_center_name(host.c.cluster_id),
        "memory": NumberField(host.c.memory_bytes, unit=_MIB),
        "cpus": NumberField(host.c.cpu_sockets * host.c.cpu_cores),
        "tag": _NOTHING,
        "type": _NOTHING,
    },
    related={
        "vm": Related(lambda: VMS, lambda: vm.c.host_id == host.c.host_id),
        "event": Related(lambda: EVENTS, lambda: event.c.host_id == host.c.host_id),
    },
    texts=(host.c.name, host.c.address, host.c.description, host.c.comment),
    order=(func.lower(host.c.name),),
)

VMS: Final = Searchable(
    table=vm,
    fields={
        "id": IdField(vm.c.vm_id),
        "name": TextField(vm.c.name),
        "comment": TextField(vm.c.comment),
        "description": TextField(vm.c.description),
        "status": WordField(vm.c.status),
        "cluster": _cluster_name(vm.c.cluster_id),
        "datacenter": _data_center_name(vm.c.cluster_id),
        "host": _host_name(vm.c.host_id),
        "type": WordField(vm.c.vm_type),
        "os": WordField(vm.c.os_type),
        "memory": NumberField(vm.c.memory_bytes, unit=_MIB),
        "creation_date": MomentField(vm.c.created_at),
        "tag": _NOTHING,
        "fqdn": _NOTHING,
        "ip": _NOTHING,
    },
    related={
        "host": Related(lambda: HOSTS, lambda: host.c.host_id == vm.c.host_id),
        "template": Related(
            lambda: TEMPLATES, lambda: TEMPLATES.table.c.template_id == vm.c.template_id
        ),
        "event": Related(lambda: EVENTS, lambda: event.c.vm_id == vm.c.vm_id),
    },
    texts=(vm.c.name, vm.c.description, vm.c.comment, vm.c.os_type),
    order=(func.lower(vm.c.name),),
)

EVENTS: Final = Searchable(
    table=event,
    fields={
        "id": NumberField(event.c.event_id),
        "type": NumberField(event.c.code),
        "severity": WordField(event.c.severity),
        "message": TextField(event.c.description),
        "time": MomentField(event.c.at),
        "correlation_id": TextField(event.c.correlation_id),
        "event_host": TextField(event.c.host_name),
        "event_vm": TextField(event.c.vm_name),
        "event_cluster": TextField(event.c.cluster_name),
        "event_datacenter": TextField(event.c.data_center_name),
        "user": TextField(event.c.user_name),
        "usrname": TextField(event.c.user_name),
    },
    related={
        "host": Related(lambda: HOSTS, lambda: host.c.host_id == event.c.host_id),
        "vm": Related(lambda: VMS, lambda: vm.c.vm_id == event.c.vm_id),
    },
    texts=(event.c.description, event.c.host_name, event.c.vm_name, event.c.correlation_id),
    order=(event.c.event_id.desc(),),
)

# There is one template, and it is not in a table: a row out of thin air is searched like any other.
_templates: Final = (
    select(
        cast(literal(BLANK_TEMPLATE_ID, Uuid), Uuid).label("template_id"),
        cast(literal("Blank", Text), Text).label("name"),
        cast(literal("Blank template", Text), Text).label("description"),
    )
).subquery("template")

TEMPLATES: Final = Searchable(
    table=_templates,
    fields={
        "id": IdField(_templates.c.template_id),
        "name": TextField(_templates.c.name),
        "description": TextField(_templates.c.description),
    },
    related={
        "datacenter": Related(lambda: DATA_CENTERS, true),
        "vm": Related(lambda: VMS, lambda: vm.c.template_id == _templates.c.template_id),
    },
    texts=(_templates.c.name, _templates.c.description),
    order=(_templates.c.name,),
)

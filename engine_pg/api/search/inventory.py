"""The fields of each type that a search can name, under the names that oVirt's clients use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar
from uuid import UUID

from engine_pg.api.search.conditions import Related, Searchable
from engine_pg.api.search.fields import (
    IdField,
    NumberField,
    TextField,
    UnknownField,
    WordField,
    column,
)
from engine_pg.api.search.moments import MomentField
from engine_pg.api.types.template import BLANK, Template
from engine_pg.inventory.rows import Cluster, DataCenter, Event, Host, Vm
from engine_pg.replica.view import View

R = TypeVar("R")

_MIB: Final = 1 << 20
_NOTHING: Final = UnknownField()
_NAME: Final = TextField(column("name"), index="name")


def _all(kind: type[R]) -> Callable[[View], Iterable[R]]:
    return lambda view: view.of(kind)


def _text(name: str) -> TextField:
    return TextField(column(name))


def _one(kind: type[Any], id_column: str) -> Callable[[View, Any], Iterable[Any]]:
    """Return the row that a row refers to."""

    def rows(view: View, row: object) -> Iterable[Any]:
        id_: UUID | None = getattr(row, id_column)
        found = None if id_ is None else view.of(kind).get(id_)
        return () if found is None else (found,)

    return rows


def _many(kind: type[Any], index: str, id_column: str) -> Callable[[View, Any], Iterable[Any]]:
    """Return the rows that refer to a row."""
    return lambda view, row: view.of(kind).by(index, getattr(row, id_column))


def _cluster_name(view: View, row: Host | Vm) -> str | None:
    found = view.of(Cluster).get(row.cluster_id)
    return None if found is None else found.name


def _data_center_name(view: View, row: Host | Vm) -> str | None:
    found = view.of(Cluster).get(row.cluster_id)
    return None if found is None else _own_data_center_name(view, found)


def _own_data_center_name(view: View, row: Cluster) -> str | None:
    found = view.of(DataCenter).get(row.data_center_id)
    return None if found is None else found.name


def _host_name(view: View, row: Vm) -> str | None:
    found = None if row.host_id is None else view.of(Host).get(row.host_id)
    return None if found is None else found.name


DATA_CENTERS: Final[Searchable[DataCenter]] = Searchable(
    kind=DataCenter,
    all=_all(DataCenter),
    fields={
        "id": IdField(column("data_center_id")),
        "name": _NAME,
        "description": _text("description"),
        "comment": _text("comment"),
        "status": WordField(column("status")),
    },
    related={
        "cluster": Related(lambda: CLUSTERS, _many(Cluster, "data_center_id", "data_center_id")),
    },
    texts=("name", "description", "comment"),
)

CLUSTERS: Final[Searchable[Cluster]] = Searchable(
    kind=Cluster,
    all=_all(Cluster),
    fields={
        "id": IdField(column("cluster_id")),
        "name": _NAME,
        "description": _text("description"),
        "comment": _text("comment"),
        "architecture": _text("cpu_architecture"),
        "datacenter": TextField(_own_data_center_name),
    },
    related={
        "datacenter": Related(lambda: DATA_CENTERS, _one(DataCenter, "data_center_id")),
        "host": Related(lambda: HOSTS, _many(Host, "cluster_id", "cluster_id")),
        "vm": Related(lambda: VMS, _many(Vm, "cluster_id", "cluster_id")),
    },
    texts=("name", "description", "comment"),
)

HOSTS: Final[Searchable[Host]] = Searchable(
    kind=Host,
    all=_all(Host),
    fields={
        "id": IdField(column("host_id")),
        "name": _NAME,
        "address": _text("address"),
        "description": _text("description"),
        "comment": _text("comment"),
        "status": WordField(column("status")),
        "cluster": TextField(_cluster_name),
        "datacenter": TextField(_data_center_name),
        "memory": NumberField(column("memory_bytes"), unit=_MIB),
        "cpus": NumberField(lambda view, row: row.cpu_sockets * row.cpu_cores),  # noqa: ARG005  # the same in each view
        "tag": _NOTHING,
        "type": _NOTHING,
    },
    related={
        "vm": Related(lambda: VMS, _many(Vm, "host_id", "host_id")),
        "event": Related(lambda: EVENTS, _many(Event, "host_id", "host_id")),
    },
    texts=("name", "address", "description", "comment"),
)

VMS: Final[Searchable[Vm]] = Searchable(
    kind=Vm,
    all=_all(Vm),
    fields={
        "id": IdField(column("vm_id")),
        "name": _NAME,
        "comment": _text("comment"),
        "description": _text("description"),
        "status": WordField(column("status")),
        "cluster": TextField(_cluster_name),
        "datacenter": TextField(_data_center_name),
        "host": TextField(_host_name),
        "type": WordField(column("vm_type")),
        "os": WordField(column("os_type")),
        "memory": NumberField(column("memory_bytes"), unit=_MIB),
        "creation_date": MomentField(column("created_at")),
        "tag": _NOTHING,
        "fqdn": _NOTHING,
        "ip": _NOTHING,
    },
    related={
        "host": Related(lambda: HOSTS, _one(Host, "host_id")),
        "template": Related(
            lambda: TEMPLATES,
            lambda view, vm: (BLANK,) if vm.template_id == BLANK.template_id else (),  # noqa: ARG005  # as above
        ),
        "event": Related(lambda: EVENTS, _many(Event, "vm_id", "vm_id")),
    },
    texts=("name", "description", "comment", "os_type"),
)

EVENTS: Final[Searchable[Event]] = Searchable(
    kind=Event,
    all=_all(Event),
    fields={
        "id": NumberField(column("event_id")),
        "type": NumberField(column("code")),
        "severity": WordField(column("severity")),
        "message": _text("description"),
        "time": MomentField(column("at")),
        "correlation_id": _text("correlation_id"),
        "event_host": _text("host_name"),
        "event_vm": _text("vm_name"),
        "event_cluster": _text("cluster_name"),
        "event_datacenter": _text("data_center_name"),
        "user": _text("user_name"),
        "usrname": _text("user_name"),
    },
    related={
        "host": Related(lambda: HOSTS, _one(Host, "host_id")),
        "vm": Related(lambda: VMS, _one(Vm, "vm_id")),
    },
    texts=("description", "host_name", "vm_name", "correlation_id"),
)

# There is one template, and it is in no table: it is searched like any other row.
TEMPLATES: Final[Searchable[Template]] = Searchable(
    all=lambda view: (BLANK,),  # noqa: ARG005  # as above
    fields={
        "id": IdField(column("template_id")),
        "name": _text("name"),
        "description": _text("description"),
    },
    related={
        "datacenter": Related(lambda: DATA_CENTERS, lambda view, blank: view.of(DataCenter)),  # noqa: ARG005  # it matches all
        "vm": Related(
            lambda: VMS,
            lambda view, blank: (  # all are made from it
                vm for vm in view.of(Vm) if vm.template_id == blank.template_id
            ),
        ),
    },
    texts=("name", "description"),
)

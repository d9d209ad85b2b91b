"""Collections that the engine has nothing of: the outermost element behind their paths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

TOP: Final = {
    "affinitylabels": "affinity_labels",
    "bookmarks": "bookmarks",
    "cpuprofiles": "cpu_profiles",
    "diskprofiles": "disk_profiles",
    "disks": "disks",
    "groups": "groups",
    "instancetypes": "instance_types",
    "networks": "networks",
    "operatingsystems": "operation_systems",
    "permissions": "permissions",
    "roles": "roles",
    "storageconnections": "storage_connections",
    "storagedomains": "storage_domains",
    "tags": "tags",
    "vmpools": "vm_pools",
    "vnicprofiles": "vnic_profiles",
}
_UNLINKED: Final = {("hosts", "fenceagents"): "agents"}
_SPECIAL: Final = {
    "affinitygroups": "affinity_groups",
    "affinitylabels": "affinity_labels",
    "cpuprofiles": "cpu_profiles",
    "cpuunits": "host_cpu_units",
    "devices": "host_devices",
    "diskattachments": "disk_attachments",
    "enabledfeatures": "cluster_features",
    "externalnetworkproviderconfigurations": "external_network_provider_configurations",
    "externalnetworkproviders": "external_providers",
    "glusterhooks": "gluster_hooks",
    "glustervolumes": "gluster_volumes",
    "graphicsconsoles": "graphics_consoles",
    "hostdevices": "host_devices",
    "iscsibonds": "iscsi_bonds",
    "katelloerrata": "katello_errata",
    "mediateddevices": "vm_mediated_devices",
    "networkattachments": "network_attachments",
    "networkfilters": "network_filters",
    "reporteddevices": "reported_devices",
    "storageconnectionextensions": "storage_connection_extensions",
    "storagedomains": "storage_domains",
    "storages": "host_storages",
    "unmanagednetworks": "unmanaged_networks",
}
_OF_OWNER: Final = {
    ("hosts", "nics"): "host_nics",
    ("hosts", "numanodes"): "host_numa_nodes",
    ("vms", "numanodes"): "vm_numa_nodes",
}


def is_part(collection: str, rel: str, links: Sequence[str]) -> bool:
    """Return whether there is a sub-collection `rel`, linked to or only known to clients."""
    return rel in links or (collection, rel) in _UNLINKED


def element_of(collection: str, rel: str) -> str:
    """Return the element name of the sub-collection `rel` of a collection's members."""
    special = _OF_OWNER.get((collection, rel)) or _UNLINKED.get((collection, rel))
    return special or _SPECIAL.get(rel, rel)

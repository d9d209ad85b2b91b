"""Collections that the engine has nothing of: the outermost element behind their links."""

from __future__ import annotations

from typing import Final

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


def element_of(collection: str, rel: str) -> str:
    """Return the element name of the sub-collection `rel` of a collection's members."""
    return _OF_OWNER.get((collection, rel)) or _SPECIAL.get(rel, rel)

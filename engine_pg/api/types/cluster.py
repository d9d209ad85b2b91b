"""Clusters on the wire."""

from __future__ import annotations

from typing import Final

from engine_pg.api.types.defaults import MAC_POOL_ID, SCHEDULING_POLICY_ID, VERSION
from engine_pg.api.wire.kinds import BOOLEAN, LABEL, NAME, STRING, enum, integer, many, ref, struct
from engine_pg.api.wire.shape import Shape, constant, given, kept

_INHERITED: Final = enum("inherit", "true", "false")
_PERCENT: Final = integer(0, 100)
_PROPERTY: Final = struct(name=LABEL, value=STRING)

CLUSTER: Final = Shape(
    "cluster",
    "clusters",
    "cluster_id",
    given("name", NAME),
    given("description", STRING),
    given("comment", STRING),
    given("data_center", ref("datacenters"), "data_center_id"),
    given(
        "cpu/architecture",
        enum("x86_64", "ppc64", "s390x", "aarch64", "undefined"),
        "cpu_architecture",
    ),
    given("cpu/type", LABEL, "cpu_type"),
    kept("version/major", integer(0, 99), VERSION["major"]),
    kept("version/minor", integer(0, 99), VERSION["minor"]),
    kept("ballooning_enabled", BOOLEAN, default=True),
    kept("bios_type", STRING, "q35_sea_bios"),
    kept("custom_scheduling_policy_properties", many("property", _PROPERTY)),
    kept("display/proxy", STRING),
    kept("error_handling/on_error", STRING, "migrate"),
    kept("fencing_policy/enabled", BOOLEAN, default=True),
    kept("fencing_policy/skip_if_sd_active/enabled", BOOLEAN, default=False),
    kept("fencing_policy/skip_if_connectivity_broken/enabled", BOOLEAN, default=False),
    kept("fencing_policy/skip_if_connectivity_broken/threshold", _PERCENT, 50),
    kept("fencing_policy/skip_if_gluster_bricks_up", BOOLEAN, default=False),
    kept("fencing_policy/skip_if_gluster_quorum_not_met", BOOLEAN, default=False),
    kept("fips_mode", STRING, "undefined"),
    kept("firewall_type", STRING, "firewalld"),
    kept("gluster_service", BOOLEAN, default=False),
    kept("ha_reservation", BOOLEAN, default=False),
    kept("ksm/enabled", BOOLEAN, default=True),
    kept("ksm/merge_across_nodes", BOOLEAN, default=True),
    kept("log_max_memory_used_threshold", integer(0), 95),
    kept("log_max_memory_used_threshold_type", STRING, "percentage"),
    kept("maintenance_reason_required", BOOLEAN, default=False),
    kept("memory_policy/over_commit/percent", integer(0), 100),
    kept("memory_policy/transparent_hugepages/enabled", BOOLEAN, default=True),
    kept("migration/auto_converge", _INHERITED, "inherit"),
    kept("migration/compressed", _INHERITED, "inherit"),
    kept("migration/encrypted", _INHERITED, "inherit"),
    kept("migration/bandwidth/assignment_method", STRING, "auto"),
    kept("migration/bandwidth/custom_value", integer(0)),
    kept("optional_reason", BOOLEAN, default=False),
    kept("required_rng_sources", many("required_rng_source", STRING), ["urandom"]),
    kept("serial_number/policy", STRING),
    kept("serial_number/value", STRING),
    kept("switch_type", STRING, "legacy"),
    kept("threads_as_cores", BOOLEAN, default=False),
    kept("trusted_service", BOOLEAN, default=False),
    kept("tunnel_migration", BOOLEAN, default=False),
    kept("virt_service", BOOLEAN, default=True),
    kept("vnc_encryption", BOOLEAN, default=False),
    constant("mac_pool", ref("macpools"), MAC_POOL_ID),
    constant("scheduling_policy", ref("schedulingpolicies"), SCHEDULING_POLICY_ID),
    links=(
        "affinitygroups", "cpuprofiles", "enabledfeatures", "externalnetworkproviders",
        "glusterhooks", "glustervolumes", "networkfilters", "networks", "permissions",
    ),
)  # fmt: skip

"""docker-compose.yml and deploy/ as they stand, without Docker: what can be wrong by reading."""

import re
import shutil
import subprocess
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml

from engine_pg.api import formation, measured
from engine_pg.api.metrics import Metrics
from engine_pg.formation.profiles import KEEPER_LINE
from engine_pg.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
NET = "${DATABASE_NET:-10.213.64}"
STACK = yaml.safe_load((ROOT / "docker-compose.yml").read_text().replace(NET, "10.213.64"))
SERVICES = STACK["services"]
FORMATION = dict(entry.split(":") for entry in STACK["x-formation-hosts"])
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
SHELL = [
    path
    for path in sorted(DEPLOY.rglob("*"))
    if path.is_file() and path.read_bytes().startswith((b"#!/bin/sh", b"#!/bin/bash"))
]
RULES = {path.name: yaml.safe_load(path.read_text()) for path in DEPLOY.glob("prometheus/*.yml")}


def secrets_of(service):
    return [each if isinstance(each, str) else each["source"] for each in service["secrets"]]


def known_to_settings(name):
    return (
        name == "ENGINE_CONFIG_FILE" or name.removeprefix(PREFIX).lower() in Settings.model_fields
    )


def test_the_engines_of_the_version_before_differ_in_image_and_start_alone():
    before = yaml.safe_load((DEPLOY / "demos/previous.yml").read_text())["services"]
    assert set(before) == {name for name in SERVICES if name.startswith("engine")}
    for each in before.values():
        assert set(each) == {"image", "build", "entrypoint", "command"}
        assert each["image"] != SERVICES["engine1"]["image"]
        assert each["build"]["target"] == "engine"
        assert each["entrypoint"][-1].endswith("exec engine-pg serve\n")


def test_each_engine_variable_is_a_setting():
    given = {name for each in SERVICES.values() for name in each.get("environment", {})}
    ours = {name for name in given if name.startswith(PREFIX)}
    assert "ENGINE_NODE" in ours
    assert {name for name in ours if not known_to_settings(name)} == set()


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_confined(name):
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    once = "healthcheck" not in service
    assert service["restart"] == ("no" if once else "unless-stopped")


@pytest.mark.parametrize("name", SERVICES)
def test_who_asks_a_server_of_the_formation_asks_no_resolver_for_it(name):
    service = SERVICES[name]
    networks = service.get("networks", [])
    if "database" in networks:
        assert service["extra_hosts"] == [f"{host}:{where}" for host, where in FORMATION.items()]
    if name in FORMATION:
        assert networks["database"]["ipv4_address"] == FORMATION[name]


def test_no_other_container_is_given_the_address_of_a_server_of_the_formation():
    (pool,) = STACK["networks"]["database"]["ipam"]["config"]
    drawn, subnet = ip_network(pool["ip_range"]), ip_network(pool["subnet"])
    for where in map(ip_address, FORMATION.values()):
        assert where in subnet
        assert where not in drawn


def test_what_is_published_is_published_on_this_machine_alone():
    published = [port for each in SERVICES.values() for port in each.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_keepers_notice_when_the_monitor_falls_silent():
    assert KEEPER_LINE in (ROOT / "deploy/formation/run").read_text()


def test_no_image_runs_as_root():
    stages = re.split(r"^FROM .* AS ", DOCKERFILE, flags=re.MULTILINE)[1:]
    users = {
        each.split("\n", 1)[0]: re.findall(r"^USER (\S+)", each, re.MULTILINE) for each in stages
    }
    assert users.pop("build") == []  # nothing runs in there
    assert set(users) == {"engine", "database", "proxy", "prometheus"}
    assert all(len(each) == 1 and each[0] not in ("root", "0") for each in users.values())


def test_each_image_is_built_by_one_service():
    built = Counter(each["image"] for each in SERVICES.values() if "build" in each)
    assert built == Counter({each["image"] for each in SERVICES.values()})
    others = [each for each in SERVICES.values() if "build" not in each]
    assert all(each["pull_policy"] == "never" for each in others)


def test_what_the_images_copy_is_let_into_the_build():
    let_in = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")
    }
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for source in line.split()
    }
    assert {each for each in copied if not (ROOT / each).exists()} == set()
    assert {
        each for each in copied if not any(f"{each}/".startswith(f"{way}/") for way in let_in)
    } == set()


def test_each_secret_that_is_handed_out_is_made(tmp_path):
    subprocess.run([DEPLOY / "secrets", tmp_path / "made"], check=True, capture_output=True)
    made = {path.name: path for path in (tmp_path / "made").iterdir()}
    assert {Path(each["file"]).name for each in STACK["secrets"].values()} == set(made)
    assert {
        each
        for service in SERVICES.values()
        if "secrets" in service
        for each in secrets_of(service)
    } == set(made)
    assert (tmp_path / "made").stat().st_mode & 0o077 == 0
    assert "node1:5432,node2:5432/engine?" in made["as-runtime"].read_text()
    verified = ["openssl", "verify", "-CAfile", made["ca.crt"], "-verify_hostname", "node1"]
    assert subprocess.run([*verified, made["node1.crt"]], capture_output=True).returncode == 0
    assert subprocess.run([*verified, made["node2.crt"]], capture_output=True).returncode != 0


def test_secrets_once_made_stay(tmp_path):
    for _ in range(2):
        subprocess.run([DEPLOY / "secrets", tmp_path / "made"], check=True, capture_output=True)
    assert len(list(tmp_path.iterdir())) == 1


def test_nodes_never_get_a_password_of_the_owner_or_of_a_server():
    for name in ("engine1", "engine2", "engine3"):
        assert secrets_of(SERVICES[name]) == ["as-runtime", "ca.crt"]
    for name in ("node1", "node2", "monitor"):
        own = {f"{name}.crt", f"{name}.key", "ca.crt", "autoctl_node", "pgautofailover_replicator"}
        assert set(secrets_of(SERVICES[name])) <= own


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_scripts_can_be_parsed(script):
    shell = script.read_text().splitlines()[0].removeprefix("#!")
    assert subprocess.run([shell, "-n", script], capture_output=True).stderr == b""
    assert script.stat().st_mode & 0o111


def exported():
    names = {line.split()[2] for line in Metrics().lines() if line.startswith("# TYPE")}
    told = set(measured.GAUGES) | set(measured.NODE) | set(formation.GAUGES)
    return names | told | {"engine_database_answers"}


def test_alerts_are_about_what_nodes_export():
    told = {
        metric
        for rules in RULES.values()
        for group in rules.get("groups", ())
        for rule in group["rules"]
        for metric in re.findall(r"\bengine_\w+", rule["expr"])
    }
    assert len(told) > 8
    assert told - exported() == set()


def test_prometheus_reads_all_rules_and_every_alert_says_what_to_do():
    assert set(RULES["prometheus.yml"]["rule_files"]) == set(RULES) - {"prometheus.yml"}
    for rules in RULES.values():
        for group in rules.get("groups", ()):
            for rule in group["rules"]:
                assert set(rule["annotations"]) == {"summary", "description"}
                assert rule["labels"]["severity"] in ("warning", "critical")
                assert rule["for"]


@pytest.mark.parametrize(
    "words",
    [
        ("promtool", "check", "config", "deploy/prometheus/prometheus.yml"),
        ("promtool", "test", "rules", "tests/unit/alerts.yml"),
        ("haproxy", "-c", "-f", "deploy/haproxy/haproxy.cfg"),
    ],
    ids=" ".join,
)
def test_the_programs_that_read_it_have_nothing_to_say_against_it(words):
    where = shutil.which(words[0], path="/usr/local/bin:/usr/bin:/usr/sbin:/bin")
    if where is None:
        pytest.skip(f"needs {words[0]}")
    done = subprocess.run([where, *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

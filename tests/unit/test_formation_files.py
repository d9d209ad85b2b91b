"""What the servers of a formation are given that somebody lays out himself."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine_pg.cli.formation import app
from engine_pg.db import roles
from engine_pg.formation.files import NAMES, files
from engine_pg.formation.profiles import KEEPER, MONITOR, NODE, PROFILES

PASSWORDS = {name: f"secret-of-{name}" for name in NAMES}


@pytest.mark.parametrize("profile", PROFILES)
def test_servers_are_given_the_settings_of_the_profile(profile):
    given = files(Path("/formation"), profile, PASSWORDS, network="samenet")
    for part, name in ((MONITOR, "monitor.conf"), (NODE, "node.conf")):
        lines = given[name].splitlines()
        assert [
            each.name for each in part if f"{each.name} = '{each.value(profile)}'" not in lines
        ] == []
    assert given["keeper.conf"] == "".join(
        f"{each.name} {each.value(profile)}\n" for each in KEEPER
    )


def test_who_connects_comes_by_tls_with_a_password_and_is_named():
    given = files(Path("/formation"), "fast", PASSWORDS, network="10.1.0.0/16")
    rules = (given["monitor_hba.conf"] + given["node_hba.conf"]).splitlines()
    for rule in rules:
        kind, _, role, *rest = rule.split()
        if kind == "local":
            assert rest == ["peer", "map=formation"] if role != "all" else rest[0] == "peer"
        else:
            assert (kind, *rest) == ("hostssl", "10.1.0.0/16", "scram-sha-256")
            assert role != "all"
    assert any(",".join(roles.names().values()) in rule for rule in rules)


def test_no_file_for_the_servers_holds_a_password():
    text = "".join(files(Path("/formation"), "fast", PASSWORDS, network="samenet").values())
    assert text.count("SCRAM-SHA-256$") == len(NAMES)
    assert [word for word in PASSWORDS.values() if word in text] == []


def test_what_is_written_for_servers_is_for_their_account_alone(tmp_path):
    passwords, folder = tmp_path / "passwords", tmp_path / "formation"
    passwords.mkdir()
    folder.mkdir()
    for name, word in PASSWORDS.items():
        (passwords / name).write_text(f"{word}\n")
    words = ["files", str(folder), "--passwords", str(passwords), "--profile", "safe"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    written = {path.name: path for path in folder.iterdir()}
    assert set(written) == set(files(folder, "safe", PASSWORDS, network="samenet"))
    assert {path.stat().st_mode & 0o777 for path in written.values()} == {0o600}
    assert f"hba_file = '{folder}/node_hba.conf'" in written["node.conf"].read_text()

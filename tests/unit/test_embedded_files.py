import errno
import json
import os
import stat
from pathlib import Path

import pytest

from engine_pg.db.embedded.account import Account
from engine_pg.db.embedded.configuration import configuration
from engine_pg.db.embedded.site import Memory, Site, explained, open_site
from engine_pg.errors import Conflict, Invalid

MYSELF = Account(os.geteuid(), os.getegid(), borrowed=False)


def site_at(home: Path) -> Site:
    return Site(MYSELF, Memory(str(home), 20001, {"postgres": "p", "engine": "e"}))


def settings_of(text: str) -> dict[str, str]:
    return dict(line.split(" = ", 1) for line in text.splitlines())


def test_what_was_decided_once_is_kept(roomy_folder):
    first = open_site(roomy_folder, 0)
    assert open_site(roomy_folder, 0).memory == first.memory


def test_passwords_are_readable_by_the_starter_alone(roomy_folder):
    site = open_site(roomy_folder, 0)
    note = roomy_folder / "server.json"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert json.loads(note.read_text())["passwords"] == site.memory.passwords
    assert len(set(site.memory.passwords.values())) == 2


def test_another_port_than_the_kept_one_is_refused(roomy_folder):
    kept = open_site(roomy_folder, 0).memory.port
    with pytest.raises(Conflict, match=f"keeps port {kept}"):
        open_site(roomy_folder, kept + 1)


def test_a_folder_below_a_file_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Invalid, match="Not a directory"):
        open_site(tmp_path / "file" / "pg", 0)


def test_a_full_disk_is_named_as_such(tmp_path):
    problem = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")
    assert explained(problem, tmp_path) == f"the disk of {tmp_path} is full"


@pytest.mark.parametrize("home", ["/short", "/" + "long" * 40])
def test_the_socket_path_fits_into_an_address(home):
    folder = site_at(Path(home)).sockets
    assert len(os.fsencode(folder / ".s.PGSQL.65535")) <= 107


def test_a_socket_folder_laid_by_somebody_else_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "trap").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict, match="belongs to somebody else"):
        MYSELF.own_folder(tmp_path / "trap")


def test_given_settings_win_over_ours_but_not_over_the_places(tmp_path):
    text = configuration(site_at(tmp_path), {"fsync": "off", "port": "1"})
    settings = settings_of(text)
    assert settings["fsync"] == "'off'"
    assert settings["port"] == "'20001'"


def test_quotes_in_values_are_escaped():
    text = configuration(site_at(Path("/it's")), {})
    assert settings_of(text)["log_directory"] == "'/it''s/log'"

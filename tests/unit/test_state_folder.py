import socket
import stat

import pytest

from engine_pg.demo.state import StateFolder, default_state_folder
from engine_pg.errors import Conflict, Invalid, NotFound


@pytest.fixture
def state(tmp_path):
    folder = StateFolder(tmp_path / "state")
    with folder.locked():
        yield folder


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_second_stack_on_the_folder_is_refused(state):
    with (
        pytest.raises(Conflict, match="another `engine-pg up` runs"),
        StateFolder(state.path).locked(),
    ):
        pass


def test_the_folder_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with StateFolder(tmp_path / "state").locked():
            pass


def test_a_folder_that_cannot_be_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(Invalid, match="Not a directory"),
        StateFolder(tmp_path / "file" / "state").locked(),
    ):
        pass


def test_the_password_is_generated_once_and_private(state):
    assert state.admin_password() == StateFolder(state.path).admin_password()
    assert mode(state.password_file) == 0o600


def test_ports_stay_what_they_were(state):
    first = state.ports(nodes=3, hosts=3)
    assert StateFolder(state.path).ports(nodes=3, hosts=5) == first


def test_the_ports_of_hosts_stay_when_those_of_the_nodes_are_chosen_anew(state):
    first = state.ports(nodes=1, hosts=3)
    second = state.ports(nodes=1, hosts=3, api=first.api + 100)
    assert (second.api, second.hosts) == (first.api + 100, first.hosts)


def test_a_taken_port_is_named(state):
    kept = state.ports(nodes=2, hosts=1)
    refused = pytest.raises(Conflict, match=f"port {kept.api + 1} of 127.0.0.1 is taken")
    with socket.create_server(("127.0.0.1", kept.api + 1)), refused:
        state.ports(nodes=2, hosts=1)


def test_the_description_holds_a_password_and_is_private(state):
    state.describe({"pid": 1})
    assert state.description() == {"pid": 1}
    assert mode(state.path / "stack.json") == 0o600


def test_without_a_stack_there_is_nothing_to_attach_to(state):
    state.describe({"pid": 1})
    state.forget_description()
    with pytest.raises(NotFound, match="engine-pg up"):
        state.description()


def test_the_environment_names_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ENGINE_STATE_DIR", str(tmp_path))
    assert default_state_folder() == tmp_path

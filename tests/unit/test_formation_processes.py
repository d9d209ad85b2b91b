import signal
import subprocess
from contextlib import contextmanager

from engine_pg.formation.processes import ask_to_stop, gone, processes_in, signal_all

FAMILY = "trap '' TERM; (sleep 60 & sleep 60) & wait"


@contextmanager
def running(folder, words):
    folder.mkdir()
    with subprocess.Popen(["sh", "-c", words], cwd=folder, start_new_session=True) as process:
        try:
            yield process
        finally:
            signal_all(folder, signal.SIGKILL)


def test_processes_are_known_by_the_folder_that_they_work_in(tmp_path):
    with running(tmp_path / "node1", "exec sleep 60") as process:
        (tmp_path / "node10").mkdir()
        assert processes_in(tmp_path / "node1") == [process.pid]
        assert processes_in(tmp_path) == [process.pid]
        assert processes_in(tmp_path / "node10") == []
    assert processes_in(tmp_path) == []


def test_a_whole_family_is_killed(tmp_path):
    with running(tmp_path / "node1", FAMILY):
        signal_all(tmp_path / "node1", signal.SIGKILL)
        assert processes_in(tmp_path / "node1") == []


def test_the_frozen_are_thawed_before_they_are_asked_to_stop(tmp_path):
    with running(tmp_path / "node1", "exec sleep 60"):
        signal_all(tmp_path / "node1", signal.SIGSTOP)
        ask_to_stop(tmp_path / "node1")
        assert gone(tmp_path / "node1", 10)

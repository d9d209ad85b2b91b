"""What `engine-pg demo` refuses, it refuses at once, and it leaves nothing behind."""

import os
import subprocess
import sys


def test_the_database_of_somebody_else_is_not_crashed(tmp_path):
    env = os.environ | {
        "ENGINE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/engine",
        "TMPDIR": str(tmp_path),
    }
    words = ["demo", "restart-database", "--state-dir", str(tmp_path / "none")]
    ended = subprocess.run(
        [sys.executable, "-m", "engine_pg", *words],
        env=env,
        text=True,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "the database is not the stack's to restart" in ended.stderr
    assert list(tmp_path.iterdir()) == []

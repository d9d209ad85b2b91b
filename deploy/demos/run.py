#!/usr/bin/env python3
"""Failures of the stack of docker-compose.yml, on purpose, each with a verdict.

    run.py                            all of them, one after the other, on the stack that runs
    run.py kill-primary switchover    some
    run.py --list                     what there is
    run.py --fresh                    build, start, break, judge, and take the stack down again
    run.py --build-previous           only build the image of the version before

Needs Docker with Compose, and nothing but Python. Exit status 1: a promise broke. `upgrade-schema`
needs git and the history as well; it takes the schema back to the version before, and what only
newer tables hold is lost.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
COMPOSE: Final = ("docker", "compose")
_SETTLED: Final = """
select count(*) = 2 and bool_and(reportedstate = goalstate and health = 1)
       and count(*) filter (where reportedstate::text = 'primary') = 1 from pgautofailover.node
"""
ENGINES: Final = ("engine1", "engine2", "engine3")
PREVIOUS: Final = "alembic/previous_version"
_PREVIOUS_TOO: Final = ("-f", "docker-compose.yml", "-f", "deploy/demos/previous.yml")
_DOWNGRADE: Final = """
import sys
from engine_pg.db.migrate import downgrade
from engine_pg.settings import load_settings
downgrade(load_settings().database_url.get_secret_value(), sys.argv[1])
"""
_BOUND_S: Final = 300.0
_BUILD_S: Final = 900.0
_UP_S: Final = "300"
_SHOWN: Final = {
    "write_gap_s": "no commit for",
    "resume_s": "work went on after",
    "takeover_s": "taken over after",
    "reads_failed": "reads failed",
    "read_gap_s": "no read for",
    "acknowledged": "acknowledged",
    "commands_lost": "lost",
    "violations": "run twice",
    "broken": "locks broken",
    "whole_s": "whole again after",
}


def call(*words: str, check: bool = True, status: tuple[int, ...] = (0,)) -> str:
    """Run a command in the checkout; return what it says."""
    done = subprocess.run(
        words, cwd=ROOT, check=False, text=True, capture_output=True, timeout=_BOUND_S
    )
    if check and done.returncode not in status:
        raise SystemExit(f"{' '.join(words)}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


class Containers:
    """The stack's containers, and what may be done to them."""

    def __init__(self) -> None:
        names = (*ENGINES, "node1", "node2", "monitor")
        self._ids = {name: call(*COMPOSE, "ps", "--all", "--quiet", name) for name in names}
        if not all(self._ids.values()):
            raise SystemExit("the stack does not run: make secrets && docker compose up --detach")
        project = call("docker", "inspect", "--format", _PROJECT, self._ids["monitor"])
        self._network = f"{project}_database"
        self._addresses: dict[str, str] = {}  # of those that are cut off

    def do(self, verb: str, *names: str) -> str:
        """Do one thing, to all that are named at once."""
        ids = [self._ids[name] for name in names]
        if verb in ("kill", "pause", "unpause", "start"):
            return call("docker", verb, *ids)
        if verb in ("cut", "join"):
            return "".join(self._plug(verb, *each) for each in zip(names, ids, strict=True))
        if verb in ("restart", "replace"):
            if verb == "restart":
                call(*COMPOSE, "restart", *names)
            return call(*COMPOSE, "up", *(_AGAIN if verb == "restart" else _NEW), *names)
        return self._for_all(verb)

    def _plug(self, verb: str, name: str, id_: str) -> str:
        if verb == "cut":
            form = f'{{{{ (index .NetworkSettings.Networks "{self._network}").IPAddress }}}}'
            self._addresses[name] = call("docker", "inspect", "--format", form, id_)
            return call("docker", "network", "disconnect", self._network, id_)
        address = ("--ip", self._addresses.pop(name))
        return call("docker", "network", "connect", *address, "--alias", name, self._network, id_)

    def _for_all(self, verb: str) -> str:
        if verb == "switchover":
            words = ("engine-pg", "formation", "switchover", "--json")
            return call("docker", "exec", self._ids["engine1"], *words, status=(0, 1))
        if verb == "settled":
            words = ("psql", "-XAtq", "-d", "pg_auto_failover", "-c", _SETTLED)
            return call("docker", "exec", self._ids["monitor"], *words, check=False)
        return SCHEMA[verb]()


def migrate() -> str:
    """Migrate as far as the version before works on."""
    return call(*COMPOSE, "run", "--rm", "migrate")


def contract() -> str:
    """Take away what only the version before needed."""
    return owner("engine-pg", "db", "upgrade", "head")


def owner(*words: str) -> str:
    """Run a program of the engine's image as the owner of the schema."""
    config = ("--env", "ENGINE_CONFIG_FILE=/run/secrets/owner")
    once = ("run", "--rm", "--no-deps", *config, "--entrypoint", words[0])
    return call(*COMPOSE, *once, "migrate", *words[1:])


def previous() -> str:
    """Return the commit of the version before."""
    lines = (ROOT / PREVIOUS).read_text().splitlines()
    return next(line for line in lines if line and not line.startswith("#"))


def build_previous() -> None:
    """Build the image of the version before, from its own source and today's Dockerfile."""
    source = subprocess.run(
        ["git", "archive", previous()], cwd=ROOT, check=True, capture_output=True, timeout=_BOUND_S
    ).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(source)) as archive:
            archive.extractall(folder, filter="data")
        Path(folder, "deploy").mkdir(exist_ok=True)
        shutil.copy(ROOT / "deploy/Dockerfile", Path(folder, "deploy/Dockerfile"))
        subprocess.run(
            [*COMPOSE, *_PREVIOUS_TOO, "build", ENGINES[0]],
            cwd=ROOT, check=True, timeout=_BUILD_S, env=os.environ | {"PREVIOUS_SOURCE": folder},
        )  # fmt: skip


def to_previous() -> str:
    """Take the stack back to the version before: its schema, and its engines on it."""
    if not call("docker", "images", "--quiet", "engine-pg-previous"):
        build_previous()
    names = call("git", "ls-tree", "--name-only", previous(), "alembic/versions/").splitlines()
    revision = max(Path(name).name[:4] for name in names if name.endswith(".py"))
    call(*COMPOSE, "stop", *ENGINES)
    owner("python3", "-c", _DOWNGRADE, revision)
    call(*COMPOSE, *_PREVIOUS_TOO, "up", *_NEW, *ENGINES)
    return revision


SCHEMA: Final = {"previous": to_previous, "migrate": migrate, "contract": contract}


_PROJECT: Final = '{{ index .Config.Labels "com.docker.compose.project" }}'
_NEW: Final = ("--detach", "--no-deps", "--no-build", "--wait")
_AGAIN: Final = (*_NEW, "--no-recreate")


def inside(*words: str) -> subprocess.Popen[str]:
    """Start the load in its container."""
    return subprocess.Popen(
        [*COMPOSE, "run", "--rm", "--no-deps", "--no-TTY", "demo", *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if not words else None,
        text=True,
    )


def played(name: str, seed: int) -> dict[str, Any] | None:
    """Play one scenario; return its run, or None when it came to no verdict."""
    containers = Containers()
    run = None
    with inside(name, str(seed)) as load:
        assert load.stdout is not None
        assert load.stdin is not None
        for line in load.stdout:
            said = json.loads(line)
            if "say" in said:
                print(f"  {said['say']}", flush=True)
            elif "report" in said:
                run = said["report"]["runs"][0]
            else:
                try:
                    answer = {"ok": True, "said": containers.do(*said["do"])}
                except SystemExit as problem:
                    answer = {"ok": False, "said": str(problem)}
                print(json.dumps(answer), file=load.stdin, flush=True)
    return run


def show(name: str, run: dict[str, Any]) -> None:
    """Print all figures of a run, as a table in Markdown."""
    print(f"\n### `{name}`: {'PASS' if run['kept'] else 'FAIL'}\n")
    print("| what | measured | promised |\n|---|---|---|")
    for figure in run["figures"].values():
        bound = "" if figure["most"] is None else f"at most {figure['most']:.3g}"
        bound = bound if figure["least"] is None else f"at least {figure['least']:g}"
        broken = "" if figure["kept"] else " **broken**"
        print(f"| {figure['title']} | {shown(figure)} | {bound}{broken} |")
    for note in run["notes"]:
        print(f"- {note}")
    print(flush=True)


def shown(figure: dict[str, Any] | None) -> str:
    """Return a figure with its unit."""
    if figure is None:
        return ""
    return f"{figure['value']:.2f} s" if figure["unit"] else f"{figure['value']:g}"


def summary(runs: list[tuple[str, dict[str, Any] | None]]) -> None:
    """Print a table of all runs."""
    print(f"| scenario | verdict | {' | '.join(_SHOWN.values())} |")
    print(f"|---|---|{'---|' * len(_SHOWN)}")
    for name, run in runs:
        if run is None:
            print(f"| {name} | none |{' |' * len(_SHOWN)}")
            continue
        cells = [shown(run["figures"].get(figure)) for figure in _SHOWN]
        print(f"| {name} | {'PASS' if run['kept'] else 'FAIL'} | {' | '.join(cells)} |")


def main() -> None:
    """Play what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenarios", nargs="*", help="which; all without")
    parser.add_argument("--list", action="store_true", help="tell what there is")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another moment")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="start a stack, and take it down")
    parser.add_argument("--no-build", action="store_true", help="with --fresh: images are there")
    parser.add_argument("--build-previous", action="store_true", help="only build that image")
    parser.add_argument("--json", type=Path, help="write all runs to a file")
    given = parser.parse_args()
    if given.build_previous:
        build_previous()
        return
    if given.fresh:
        call(*COMPOSE, "version")
        call("deploy/secrets")
        if not given.no_build and (not given.scenarios or "upgrade-schema" in given.scenarios):
            build_previous()
        build = "--no-build" if given.no_build else "--build"
        subprocess.run(
            [*COMPOSE, "up", build, "--detach", "--wait", "--wait-timeout", _UP_S],
            cwd=ROOT, check=True,
        )  # fmt: skip
    try:
        broken = play(given)
    finally:
        if given.fresh:
            call(*COMPOSE, "--profile", "*", "down", "--volumes", "--timeout", "10")
    sys.exit(broken)


def play(given: argparse.Namespace) -> bool:
    """Play the scenarios; return whether any promise broke."""
    with inside() as asked:
        known: dict[str, str] = json.loads(asked.communicate()[0])
    if given.list:
        print("\n".join(f"{name:<26} {about}" for name, about in known.items()))
        return False
    if unknown := set(given.scenarios) - set(known):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; --list tells what there is")
    runs: list[tuple[str, dict[str, Any] | None]] = []
    for turn in range(given.repeat):
        for name in given.scenarios or known:
            print(f"{name}: {known[name]}", flush=True)
            runs.append((name, run := played(name, given.seed + turn)))
            if run:
                show(name, run)
    summary(runs)
    if given.json:
        given.json.write_text(json.dumps([{"name": name, "run": run} for name, run in runs]))
    return not all(run and run["kept"] for _, run in runs)


if __name__ == "__main__":
    main()

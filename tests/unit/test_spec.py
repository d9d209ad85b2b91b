"""The formal model: what its README names and what its models leave out are the same rules."""

from __future__ import annotations

import re
from pathlib import Path

SPEC = Path(__file__).resolve().parents[2] / "docs" / "spec"
MODELS = sorted(SPEC.glob("*.pml"))
MACRO = re.compile(r"\bNO_[A-Z_]+\b")


def code(model: Path) -> str:
    return re.sub(r"/\*.*?\*/", "", model.read_text(), flags=re.DOTALL)


def left_out_of(model: Path) -> set[tuple[str, str]]:
    found = re.findall(r"/\* RULE (NO_\w+) ?[^:*]*: ([\w ]+?) \*/", model.read_text())
    return {(rule, broken) for rule, broken in found}


def test_every_rule_of_the_readme_is_one_that_a_model_can_leave_out():
    rows = re.findall(
        r"^\| `(NO_\w+)` \|.*\| ([\w ]+?) \|$", (SPEC / "README.md").read_text(), re.M
    )
    assert len(rows) == len(set(rows)) > 20
    assert set(rows) == set().union(*map(left_out_of, MODELS))


def test_every_rule_of_a_model_is_left_out_in_turn():
    for model in MODELS:
        in_code = set(MACRO.findall(code(model)))
        assert in_code == {rule for rule, _ in left_out_of(model)}, model.name


def test_every_model_is_searched_whole():
    assert [model.name for model in MODELS if "/* CHECK" not in model.read_text()] == []

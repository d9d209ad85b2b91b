"""The list of mutants fits the tree; whether each is caught is for `make mutants`."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[2] / "scripts" / "mutants.py"))


@pytest.mark.parametrize("mutant", SCRIPT["read"](), ids=lambda mutant: mutant.name)
def test_a_mutant_applies_and_its_tests_are_there(mutant):
    SCRIPT["check"]([mutant])

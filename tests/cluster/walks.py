"""How state machines over a real PostgreSQL are run: the same dice each time, or new ones for long.

ENGINE_TEST_STATEFUL_SECONDS=600 goes on for that long, with new dice.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from engine_pg.clock import boottime

SECONDS = float(os.environ.get("ENGINE_TEST_STATEFUL_SECONDS", "0"))


def rules(examples: int, steps: int, *, derandomize: bool) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=derandomize,
        database=None,
        phases=[Phase.generate],  # to shrink is in vain: processes never do the same twice
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


def walk(machine: type[RuleBasedStateMachine], *, examples: int, steps: int) -> None:
    try:
        run_state_machine_as_test(machine, settings=rules(examples, steps, derandomize=True))
    except FlakyStrategyDefinition:
        # Two walks began alike and went on differently, as real processes do; Hypothesis takes that
        # for a defect of the walk. Other dice, then: twice in a row it is no accident.
        run_state_machine_as_test(machine, settings=rules(examples, steps, derandomize=False))
    until = boottime() + SECONDS
    while SECONDS and boottime() < until:
        run_state_machine_as_test(machine, settings=rules(10, steps, derandomize=False))

"""The verdict of a demo can fail, and says so."""

from uuid import UUID

from engine_pg.demo.load import Tally
from engine_pg.demo.rest import Heard
from engine_pg.demo.restart_database import Held
from engine_pg.demo.verdict import Figure, Report, as_json, spreads

COMMAND = UUID(int=7)


def report(value: float) -> Report:
    return Report([Figure("lost", "lost", value, most=0), Figure("seen", "seen", value)])


def test_a_figure_beyond_a_bound_breaks_the_promise():
    assert Figure("a", "a", 5.5, most=5.5).kept
    assert not Figure("a", "a", 5.501, most=5.5).kept
    assert Figure("a", "a", 1, least=1).kept
    assert not Figure("a", "a", 0, least=1).kept


def test_a_figure_without_a_bound_promises_nothing():
    assert not Figure("a", "a", 1e9).promised
    assert Figure("a", "a", 1e9).kept


def test_one_broken_promise_breaks_the_run_and_the_whole():
    assert report(0).kept
    assert not report(1).kept
    written = as_json("a story", [report(0), report(1)])
    assert not written["kept"]
    assert [run["kept"] for run in written["runs"]] == [True, False]


def test_a_spread_counts_the_runs_that_broke():
    lost, seen = spreads([report(0), report(3), report(1)])
    assert (lost.lowest, lost.median, lost.highest, lost.broken) == (0, 1, 3, 2)
    assert seen.broken == 0


def row(
    token: int | None, *, session: int | None = 1, final: bool = False, attempt: int = 1
) -> dict[str, object]:
    return {
        "command_id": COMMAND,
        "attempt": attempt,
        "kind": "vm",
        "id": "1",
        "token": token,
        "session_number": session,
        "final": final,
    }


def fates(*later: dict[str, object]) -> dict[str, int]:
    held = Held([row(10)])
    held.judge(list(later))
    return dict(held.fates)


def test_a_grant_that_a_later_session_holds_under_its_token_was_resumed():
    assert fates(row(10, session=2)) == {"resumed": 1}


def test_a_grant_that_nobody_resumed_yet_has_no_fate_yet():
    assert fates(row(10, session=1)) == {}
    assert fates(row(10, session=None)) == {}


def test_a_grant_is_over_with_its_command():
    assert fates(row(None, session=None, final=True)) == {"over": 1}


def test_a_command_that_an_adopter_ended_had_its_grants_broken():
    assert fates(row(None, session=None, final=True, attempt=2)) == {"broken": 1}


def test_a_grant_that_a_running_command_lost_or_got_anew_is_broken():
    assert fates(row(None, session=None)) == {"broken": 1}
    assert fates(row(11, session=2)) == {"broken": 1}
    assert fates(row(11, session=2, attempt=2)) == {"broken": 1}
    assert fates() == {"broken": 1}


def test_only_what_found_no_node_that_served_it_is_a_failed_request():
    tally = Tally()
    for status in (0, 200, 201, 404, 409, 500, 503):
        tally.hear(Heard("http://node-1", status))
    assert tally.requests == 7
    assert [heard.status for heard in tally.failed] == [0, 500, 503]


def test_a_request_that_nobody_answered_does_not_end_the_silence():
    moments = iter([10.0, 11.0, 14.0, 14.5])
    tally = Tally(clock=lambda: next(moments))
    for status in (200, 200, 503, 200, 200):
        tally.hear(Heard("http://node-1", status))
    assert tally.silence_s == 3.0

"""The benchmark of failovers: its arithmetic, and what it says when nothing was measured."""

from __future__ import annotations

from benchmarks.failover.report import figures, page, show
from benchmarks.plot import charts


def found(kind: str, gap_s: float, *, resume_s: float = 0.5, lost: int = 0) -> dict:
    return {
        "kind": kind,
        "write_gap_s": gap_s,
        "writable_s": gap_s - 0.5,
        "read_gap_s": 2.0,
        "reads": 100,
        "reads_failed": 0,
        "resume_s": resume_s,
        "lost": lost,
        "violations": [f"{lost} lost"] if lost else [],
    }


def test_each_fault_has_its_median_gap_and_the_worst_of_the_rest():
    two = [found("kill", 4.0), found("kill", 6.0, resume_s=0.9), found("kill", 5.0, lost=2)]
    report = figures([*two, found("freeze", 3.0)], [found("kill", 8.0)], [found("kill", 50.0)])
    assert report["faults"]["kill"]["write_gap_p50_s"] == 5.0
    assert report["faults"]["kill"]["resume_s"] == 0.9
    assert report["faults"]["kill"]["lost"] == report["lost"] == 2
    assert report["violations"] == ["2 lost"]
    assert report["three_nodes"]["kill"]["write_gap_p50_s"] == 8.0


def test_the_ratio_of_all_is_that_of_the_fault_that_fares_worst_and_of_no_switchover():
    ours = [found("kill", 5.0), found("freeze", 4.0), found("switchover", 1.0)]
    default = [found("kill", 50.0), found("freeze", 50.0), found("switchover", 2.0)]
    report = figures(ours, [], default)
    assert report["ratios"] == {
        "gap_vs_default": 0.1,
        "gap_vs_default_kill": 0.1,
        "gap_vs_default_freeze": 0.08,
        "gap_vs_default_switchover": 0.5,
    }
    assert report["faults"]["freeze"]["ratios"] == {"gap_vs_default": 0.08}


def test_what_was_not_measured_is_null(capsys):
    report = figures([found("kill", 5.0)], [], [])
    assert report["ratios"] == {"gap_vs_default": None, "gap_vs_default_kill": None}
    show(report)
    assert "not measured" in capsys.readouterr().out


def test_a_report_can_be_drawn():
    report = figures([found("kill", 5.0)], [found("kill", 7.0)], [found("kill", 50.0)])
    [chart] = charts(report).values()
    assert chart.svg().count("<rect") >= 3


def test_the_page_shows_each_fault_beside_the_default():
    report = figures(
        [found("kill", 5.0), found("freeze", 4.0)], [found("kill", 7.0)], [found("kill", 50.0)]
    )
    machine = {"processors": 2, "processor": "p", "load": 0.1, "postgresql": "15"}
    report |= {"locks": 1000, "ttl_s": 5.0, "machine": machine, "took_s": 600}
    rows = [line for line in page(report).splitlines() if line.startswith("| ")][1:]
    assert rows[0].startswith("| kill | 2 | 1 | 5.0 (5.0) | 50.0 | 0.100 |")
    assert rows[1].startswith("| freeze | 2 | 1 | 4.0 (4.0) |  |  |")
    assert rows[2].startswith("| kill | 3 | 1 | 7.0 (7.0) |  |  |")
    assert "0.100 of the default's gap" in page(report)

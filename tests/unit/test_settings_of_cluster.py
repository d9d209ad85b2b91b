"""What there is to set, and what is refused."""

import pytest

from engine_pg.configuration import definition
from engine_pg.configuration.definition import NAMES, ClusterSettings, bounds_of, overlaid, read
from engine_pg.errors import Invalid, NotFound
from engine_pg.settings import MOVED, Settings


def test_every_setting_is_described_and_bounded():
    for name in NAMES:
        assert definition.field_of(name).description
        bounds = bounds_of(name)
        assert "enum" in bounds or {"minimum", "maximum"} <= bounds.keys()


def test_the_defaults_keep_the_rules():
    assert overlaid(ClusterSettings().model_dump()) == ClusterSettings()


def test_a_setting_is_of_the_cluster_or_of_a_node_and_never_of_both():
    assert not set(NAMES) & set(Settings.model_fields)
    assert set(NAMES) >= MOVED


@pytest.mark.parametrize(
    "value", [0, -1, 61, True, "3", None, [3], {}, 10**400, float("nan"), float("inf")]
)
def test_a_value_of_another_type_or_out_of_bounds_is_refused(value):
    with pytest.raises(Invalid, match=r"^monitor_period_s should be"):
        overlaid({"monitor_period_s": value})


def test_a_refusal_is_short():
    with pytest.raises(Invalid) as refused:
        overlaid({"monitor_period_s": "9" * 10_000})
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("monitor_period_s", "2", 2.0),
        ("monitor_period_s", "2.5", 2.5),
        ("auth_failures_per_minute", "12", 12),
    ],
)
def test_a_text_is_read_as_the_type_of_its_setting(name, text, value):
    found = read(name, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["", "x", "nan", "61", "1 s"])
def test_a_text_that_is_no_good_value_is_refused(text):
    with pytest.raises(Invalid, match=r"^monitor_period_s should be"):
        read("monitor_period_s", text)


def test_an_unknown_setting_is_not_found():
    with pytest.raises(NotFound):
        read("monitor_perod_s", "3")


def test_what_breaks_a_rule_counts_as_its_default_and_the_rest_stands():
    settings, wrong = definition.tolerated(
        {"monitor_period_s": 1e9, "from_a_newer_release": 1, "accept_wait_s": 7}
    )
    assert settings == ClusterSettings(accept_wait_s=7)
    assert wrong == {
        "monitor_period_s": "monitor_period_s should be less than or equal to 60, not 1000000000.0",
        "from_a_newer_release": "there is no setting from_a_newer_release",
    }

import pytest

from engine_pg.errors import Invalid
from engine_pg.formation import profiles
from engine_pg.formation.programs import PACKAGES, programs

KEEPERS_DELAYS_S = 2.0  # the worst that was measured


def test_in_the_safe_profile_an_old_primary_has_fenced_itself_before_the_new_one_takes_writes():
    assert profiles.overlap_margin_s("safe") >= KEEPERS_DELAYS_S


def test_the_fast_profile_does_not_claim_so():
    assert profiles.overlap_margin_s("fast") < 0


def test_a_standby_counts_long_enough_for_the_keeper_to_notice_that_it_is_cut_off():
    for profile in profiles.PROFILES:
        assert profiles.chosen(profiles.NODE, profile)["wal_sender_timeout"] == "6s"


def test_each_setting_stands_once_and_has_its_reason():
    for table in (profiles.MONITOR, profiles.NODE, profiles.KEEPER):
        assert len({setting.name for setting in table}) == len(table)
        assert all(setting.reason for setting in table)


def test_without_the_packages_it_says_which_ones_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Invalid, match=f"pg_autoctl.*openssl.*pgautofailover.so.*{PACKAGES}"):
        programs(tmp_path)

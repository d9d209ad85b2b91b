import pytest

from engine_pg.errors import Invalid
from engine_pg.settings import Settings, load_settings

URL = "postgresql://engine:hidden@db1,db2/engine?target_session_attrs=read-write"


@pytest.fixture(autouse=True)
def _only_the_database(monkeypatch):
    import os

    for name in [name for name in os.environ if name.startswith("ENGINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ENGINE_DATABASE_URL", URL)


def complaints(**overrides) -> list[str]:
    with pytest.raises(Invalid) as refused:
        load_settings(**overrides)
    head, *lines = str(refused.value).splitlines()
    assert head == "wrong settings:"
    return [line.strip() for line in lines]


def test_the_database_alone_suffices():
    settings = load_settings()
    assert settings.database_url.get_secret_value() == URL
    assert settings.advertised_url == "http://127.0.0.1:8080"


def test_margin_and_heartbeat_follow_the_ttl():
    settings = load_settings(lease_ttl_s=2)
    assert (settings.lease_margin_s, settings.heartbeat_s) == (0.2, 2 / 3)


def test_an_argument_wins_over_a_variable_and_that_over_the_file(monkeypatch, tmp_path):
    file = tmp_path / "engine.toml"
    file.write_text('node = "from-file"\nlisten_port = 1\nworker_concurrency = 3\n')
    monkeypatch.setenv("ENGINE_CONFIG_FILE", str(file))
    monkeypatch.setenv("ENGINE_NODE", "from-variable")
    monkeypatch.setenv("ENGINE_LISTEN_PORT", "2")
    settings = load_settings(listen_port=3, worker_concurrency=None)
    found = (settings.node, settings.listen_port, settings.worker_concurrency)
    assert found == ("from-variable", 3, 3)


def test_a_file_of_variables_is_read_as_well(monkeypatch, tmp_path):
    file = tmp_path / "engine.env"
    file.write_text("ENGINE_NODE=from-file\n")
    monkeypatch.setenv("ENGINE_CONFIG_FILE", str(file))
    assert load_settings().node == "from-file"


def test_a_missing_file_is_named(monkeypatch):
    monkeypatch.setenv("ENGINE_CONFIG_FILE", "/nowhere.toml")
    with pytest.raises(Invalid, match=r"names no file: /nowhere\.toml"):
        load_settings()


def test_a_broken_file_is_refused_with_the_place(monkeypatch, tmp_path):
    file = tmp_path / "engine.toml"
    file.write_text("node = \n")
    monkeypatch.setenv("ENGINE_CONFIG_FILE", str(file))
    with pytest.raises(Invalid, match="line 1"):
        load_settings()


def test_a_misspelled_name_is_refused_with_the_nearest(monkeypatch):
    monkeypatch.setenv("ENGINE_LEASE_TLL_S", "3")
    assert complaints() == ["ENGINE_LEASE_TLL_S is unknown; did you mean ENGINE_LEASE_TTL_S?"]


def test_a_misspelled_name_in_the_file_is_refused(monkeypatch, tmp_path):
    file = tmp_path / "engine.toml"
    file.write_text("lease_tll_s = 3\n")
    monkeypatch.setenv("ENGINE_CONFIG_FILE", str(file))
    assert complaints() == ["ENGINE_LEASE_TLL_S is unknown; did you mean ENGINE_LEASE_TTL_S?"]


@pytest.mark.parametrize("name", ["ENGINE_CI", "ENGINE_STATE_DIR", "ENGINE_TEST_PG_BIN"])
def test_names_that_are_not_about_a_node_are_left_alone(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert load_settings()


def test_all_complaints_come_at_once(monkeypatch):
    monkeypatch.delenv("ENGINE_DATABASE_URL")
    monkeypatch.setenv("ENGINE_LISTEN_PORT", "http")
    monkeypatch.setenv("ENGINE_LEASE_TTL_S", "0.2")
    assert complaints() == [
        "ENGINE_DATABASE_URL is needed",
        "ENGINE_LISTEN_PORT should be a valid integer, unable to parse string as an integer,"
        " not http",
        "ENGINE_LEASE_TTL_S should be greater than or equal to 0.5, not 0.2",
    ]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (
            {"lease_ttl_s": 2, "lease_margin_s": 1},
            "ENGINE_LEASE_MARGIN_S should be below half of ENGINE_LEASE_TTL_S",
        ),
        (
            {"lease_ttl_s": 2, "heartbeat_s": 0.7},
            "ENGINE_HEARTBEAT_S should be at most a third of ENGINE_LEASE_TTL_S",
        ),
        (
            {"pool_min": 9, "pool_max": 8},
            "ENGINE_POOL_MIN should not be above ENGINE_POOL_MAX",
        ),
        (
            {"tls_key": __file__},
            "ENGINE_TLS_CERTIFICATE and ENGINE_TLS_KEY are needed together",
        ),
    ],
)
def test_contradictions_are_refused(overrides, complaint):
    assert complaints(**overrides) == [complaint]


@pytest.mark.parametrize("url", ["mysql://engine:hidden@db/engine", "engine:hidden@db"])
def test_no_complaint_shows_a_password(url):
    found = complaints(database_url=url, listen_port=0)
    assert len(found) == 2
    assert "hidden" not in "".join(found)


def test_the_settings_do_not_print_their_password():
    assert "hidden" not in repr(load_settings())


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())


def test_a_setting_that_is_now_the_clusters_is_refused_with_the_way_to_set_it(monkeypatch):
    monkeypatch.setenv("ENGINE_MONITOR_PERIOD_S", "3")
    assert complaints() == [
        "ENGINE_MONITOR_PERIOD_S is a setting of the whole cluster now:"
        " engine-pg settings set monitor_period_s VALUE"
    ]

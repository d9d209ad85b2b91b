import sqlalchemy as sa

from engine_pg.db.urls import sqlalchemy_url


def arguments_of(url):
    engine = sa.create_engine(sqlalchemy_url(url))
    known = engine.dialect.create_connect_args(engine.url)[1]
    return {name: value for name, value in known.items() if name != "context"}


def test_migrations_find_the_writable_one_of_several_hosts():
    asked = arguments_of("postgresql://me:a%2Fb@one:1,two:2/engine?sslrootcert=/some/ca.crt")
    assert asked == {
        "host": "one,two",
        "port": "1,2",
        "user": "me",
        "password": "a/b",
        "dbname": "engine",
        "sslrootcert": "/some/ca.crt",
        "target_session_attrs": "read-write",
        "connect_timeout": "3",
    }


def test_what_the_address_says_of_several_hosts_wins():
    asked = arguments_of("postgresql://me@one:1,two:2/engine?connect_timeout=9")
    assert asked["connect_timeout"] == "9"


def test_one_host_is_asked_as_it_stands():
    asked = arguments_of("postgres://me@one:1/engine?sslmode=require")
    assert asked == {
        "host": "one",
        "port": 1,
        "user": "me",
        "dbname": "engine",
        "sslmode": "require",
    }

"""The advisory lock follows an adopted grant, and no other one is counted again meanwhile."""

import psycopg

MEMBER = "00000000-0000-0000-0000-000000000001"
GRANT = """
insert into lock_grant (kind, id, mode, token, advisory, member_id, advisory_held)
values ('k', %s, 'exclusive', %s, %s, %s, %s)
"""
RELEASE = "select lock_release(%s, array['k'], array[%s], array[%s]::bigint[])"
ADVISORY = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"


def test_following_one_grant_counts_no_lock_of_another_whatever_the_plan(fresh_database_url):
    with psycopg.connect(fresh_database_url, autocommit=True) as session:
        for number in range(3):
            session.execute("select pg_advisory_lock(%s)", (number,))
            session.execute(GRANT, (str(number), number, number, MEMBER, True))
        session.execute(GRANT, ("3", 3, 3, MEMBER, False))
        session.execute("analyze lock_grant")  # of a table this small all rows are looked at
        session.execute("select lock_follow(%s)", (MEMBER,))
        assert session.execute(ADVISORY).fetchone() == (4,)
        for number in range(4):
            session.execute(RELEASE, (MEMBER, str(number), number))
        assert session.execute(ADVISORY).fetchone() == (0,)

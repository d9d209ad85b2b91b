"""How long a lost primary stops work: with the engine's settings and clients, and by default.

Monitor, servers, engine nodes and clients have a network namespace each. The primary is killed
(the whole machine's programs), frozen, made to vanish without a word, cut off while it lives, and
switched over; the engine has its load meanwhile, and its members hold 1,000 locks. Beside it, at
the same time, pg_auto_failover with its default settings and a plain psycopg client suffer the
same. Root only: it makes namespaces.
"""

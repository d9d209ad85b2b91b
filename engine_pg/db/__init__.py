"""PostgreSQL: connections, transactions, doorbells, the job queue, migrations, an embedded server.

Nothing in here knows the engine's tables. No commit is ever cancelled, every wait is bounded, and
an outcome that is unknown is said to be unknown.
"""

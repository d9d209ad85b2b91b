"""Commands through the queue: throughput, submission to start, and a killed worker's job.

Ours is a durable command with one no-op step and no lock: its row, its job, its step and its end
are committed. Beside it Procrastinate used plainly, pgqueuer and DBOS, each in its best settings
that we know, on databases of the same server, in one run: 1 and 4 worker processes of each, and
one process that submits.
"""

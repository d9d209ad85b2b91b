"""Locks, leases and leaders of the engine, measured beside what one would take instead.

python -m benchmarks.locks --json FILE      everything, some minutes
python -m benchmarks.locks --only throughput --peers naive --seconds 2

A *client* is a coroutine that locks; a *node* is one session of a contender: a member of ours, a
client object of Redis or etcd. See docs/benchmarks/README.md for what is compared with what.
"""

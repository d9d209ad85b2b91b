"""What the engine manages: data centers, clusters, hosts, VMs, and the events about them.

Rows are read through any transaction and written only through a `FencedTx`.
"""

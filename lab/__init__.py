"""Several machines in one: namespaces, and a formation with engines on machines of their own.

For tests and benchmarks; nothing in the engine knows of it.
"""

"""What all nodes go by: cluster settings, kept in the database and changed while the nodes run.

`definition` says what there is, typed and bounded; `store` reads and changes it; `live` is a node's
copy. What must differ by node stands in its environment (`engine_pg.settings`).

Does not promise: that all nodes go by a new value at the same instant. Each hears of it within
milliseconds, or with its next poll; a node that the database does not answer keeps what it has.
"""

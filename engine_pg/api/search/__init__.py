"""oVirt's search language: text ──grammar──▶ tree ──conditions──▶ a test of the replica's rows.

    cond {[AND|OR] cond} [SORTBY field [ASC|DESC]] [PAGE n]

A condition is `[object.]field operator value`, or free text that is looked for in every text
column; so is a field that nobody knows. AND binds tighter and may be left out.
"""

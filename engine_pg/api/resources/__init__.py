"""What lies at the paths of the API: one file per resource, each little more than a table.

`resource` says what a type of entity is made of, `entities` serves any of them over HTTP, `catalog`
lists them all by the name of their collection.
"""

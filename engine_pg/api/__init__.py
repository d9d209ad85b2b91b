"""HTTP in, commands out: oVirt's REST API, and the doors for people and machines that watch.

`app` is the table of all paths. A request passes `edge` and `auth`, reaches one of `resources`,
is read and written by `wire` along the tables of `types`, and either reads the database or submits
a command. Nothing here changes the inventory.
"""

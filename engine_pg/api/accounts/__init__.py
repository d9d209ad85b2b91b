"""Who may speak to the engine: users, their passwords and tokens, kept in the database.

A token issued by one node is good on every node; nothing here lives in a node's memory.
"""

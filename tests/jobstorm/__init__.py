"""Commands in a storm: PostgreSQL restarts, nodes are killed, and every command is done once."""

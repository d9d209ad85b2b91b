"""The search as SQL: how PostgreSQL answers what the engine answers from memory, for comparison."""

"""singletons."""

"""One table per type of the API: which elements it has, and what of the engine they stand for."""

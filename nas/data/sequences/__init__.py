"""Your own series, recordings and texts."""

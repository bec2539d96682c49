"""Data sets of series and of texts."""

"""Which network to try next."""

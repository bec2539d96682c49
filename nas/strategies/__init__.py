"""Strategies: which network to try next."""

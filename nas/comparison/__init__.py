"""Strategies side by side under one budget, with baselines, and what may be concluded."""

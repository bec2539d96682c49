"""Evaluators: where networks are trained, and for how many epochs."""

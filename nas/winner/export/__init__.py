"""A trained network in formats that others read."""

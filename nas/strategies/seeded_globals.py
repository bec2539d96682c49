"""DEAP draws from the global random numbers of Python and NumPy; a strategy must draw from its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def seeded_globals(rng: random.Random) -> Iterator[None]:
    """Seed the global random numbers from ``rng``; restore them afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(rng.getrandbits(64))
    np.random.seed(rng.getrandbits(32))
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)

"""DEAP draws from Python's and numpy's global random numbers; a strategy must not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def lent(rng: random.Random) -> Iterator[None]:
    """Inside, the global random numbers follow from ``rng``; afterwards they are as they were before."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(rng.getrandbits(64))
    np.random.seed(rng.getrandbits(32))
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)

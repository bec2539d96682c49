"""Random numbers that are a function of a key and a position, on any device, for many copies at once.

SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014) as a hash. PyTorch's own
generators would tie the masks of a copy to whatever else is drawn beside it, and differ between a CPU and a GPU.
On a CPU masks cost less like this, too (docs/decisions/0009).
"""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 2⁶⁴ / φ, odd, as int64; so are the constants of the mixing
MIX = ((30, -4658895280553007687), (27, -7723592293110705685))
LAST_SHIFT = 31
LANES = 4  # numbers of 16 bits in one of 64
LEVELS = 2**16


def mixed(counter: Tensor) -> Tensor:
    """Random bits, int64, for each whole number of ``counter`` (int64); changes it."""
    counter.mul_(GOLDEN)
    for shift, factor in MIX:
        counter.bitwise_xor_(_shifted(counter, shift)).mul_(factor)
    return counter.bitwise_xor_(_shifted(counter, LAST_SHIFT))


def _shifted(bits: Tensor, by: int) -> Tensor:
    """To the right, zeros coming in (PyTorch's shift repeats the sign)."""
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def keys(seeds: Tensor, steps: Tensor) -> Tensor:
    """A key (steps, copies) for each step (steps,) of each copy (copies,), int64."""
    return mixed(mixed(steps.clone())[:, None] + seeds)


def kept(keys: Tensor, count: int, rate: float) -> tuple[Tensor, float]:
    """Which of ``count`` values each key (copies,) keeps, (copies, count) bool, and the share that is kept.

    The rate is rounded to 16 bits; the share is that of the rounded rate.
    """
    dropped = round(rate * LEVELS)
    numbers = torch.arange(-(-count // LANES), device=keys.device)
    bits = mixed(numbers + keys[:, None]).view(torch.int16)[:, :count]
    return bits >= dropped - LEVELS // 2, 1 - dropped / LEVELS

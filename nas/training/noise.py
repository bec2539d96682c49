"""Random numbers that are a function of a key and a position, on any device.

SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014) is used as a hash. With
PyTorch's generators the masks of a network would depend on the networks that train at the same time and on the
device. The hash is also faster on a CPU (docs/decisions/0009).
"""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 2⁶⁴ / φ, odd, as int64; the factors of MIX are odd int64 numbers, too
MIX = ((30, -4658895280553007687), (27, -7723592293110705685))
LAST_SHIFT = 31
LANES = 4  # 16-bit numbers in a 64-bit number
LEVELS = 2**16


def mixed(counter: Tensor) -> Tensor:
    """Replace each whole number of ``counter`` (int64) by 64 random bits, in place; returns ``counter``."""
    counter.mul_(GOLDEN)
    for shift, factor in MIX:
        counter.bitwise_xor_(_shifted_right(counter, shift)).mul_(factor)
    return counter.bitwise_xor_(_shifted_right(counter, LAST_SHIFT))


def _shifted_right(bits: Tensor, by: int) -> Tensor:
    """``bits`` moved to the right, with zeros on the left (PyTorch's shift repeats the sign)."""
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def keys(seed: int, positions: Tensor) -> Tensor:
    """The key of each position (int64, any shape) in the random sequence of a seed (0 to 2⁶⁴ - 1), int64."""
    signed = seed - 2**64 if seed >= 2**63 else seed
    return mixed(mixed(positions.clone()) + signed)


def kept(key: Tensor, count: int, rate: float) -> tuple[Tensor, float]:
    """Decide which of ``count`` values a dropout with this key (a single int64) keeps.

    Returns:
        The mask, (count,) bool, and the share of the values that is kept on average: 1 - ``rate``, where the rate
        is rounded to 16 bits.
    """
    dropped = round(rate * LEVELS)
    positions = torch.arange(-(-count // LANES), device=key.device)
    bits = mixed(positions + key).view(torch.int16)[:count]
    return bits >= dropped - LEVELS // 2, 1 - dropped / LEVELS

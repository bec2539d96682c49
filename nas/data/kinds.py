"""The kinds of inputs: images, series and tokens; and what they are called in texts for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Kind = Literal["images", "series", "tokens"]


class Noun(NamedTuple):
    """What inputs are called."""

    one: str
    many: str
    each: str  # with its article


NOUNS: dict[Kind, Noun] = {
    "images": Noun("image", "images", "an image"),
    "series": Noun("series", "series", "a series"),
    "tokens": Noun("text", "texts", "a text"),
}


def kind_of(shape: Sequence[int]) -> Kind:
    """What inputs of a shape are: images (channels, height, width), series (channels, time) or tokens (time,)."""
    kinds: tuple[Kind, ...] = ("tokens", "series", "images")
    return kinds[len(shape) - 1]


def noun_of(shape: Sequence[int]) -> Noun:
    """What inputs of a shape are called."""
    return NOUNS[kind_of(shape[:3])]

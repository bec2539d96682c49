"""What every layer is: plain data with checked settings that knows its shape, parameters and arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from nas.errors import ArchitectureError, quoted

Shape = tuple[int, ...]


def show(shape: Shape) -> str:
    """A shape as people read it, channels last: ``26×26×32``."""
    return "×".join(str(size) for size in (*shape[1:], shape[0]))


def setting(allows: Callable[[Any], bool], words: str, default: Any = MISSING) -> Any:
    """A field of a layer: which values it ``allows``, and how to say that in ``words``."""
    return field(default=default, metadata={"allows": allows, "words": words})


def count(default: Any = MISSING) -> Any:
    """A setting that counts something."""
    # The upper end is far beyond any sensible layer, and keeps a hostile file from asking for terabytes.
    return setting(lambda v: type(v) is int and 1 <= v <= 65_536, "a whole number from 1 to 65536", default)


def one_of(*names: str, default: str) -> Any:
    """A setting that is one of a few words."""
    return setting(lambda v: v in names, f"one of {', '.join(names)}", default)


def switch(*, default: bool = False) -> Any:
    """A setting that is on or off."""
    return setting(lambda v: type(v) is bool, "true or false", default)


def channels_of(shape: Shape) -> int:
    """The channels of a map.

    Raises:
        ArchitectureError: it is a vector.
    """
    if len(shape) != 3:
        raise ArchitectureError(f"it needs a map (height×width×channels), and gets {shape[0]} features")
    return shape[0]


@dataclass(frozen=True)
class Layer(ABC):
    """One layer of a network: plain, frozen data."""

    def __post_init__(self) -> None:
        """Refuse settings that no layer can have."""
        for one in fields(self):
            value = getattr(self, one.name)
            if not one.metadata["allows"](value):
                raise ArchitectureError(
                    f"{type(self).__name__}: {one.name} must be {one.metadata['words']}, not {quoted(value)}"
                )

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """The shape that this layer makes of ``shape``.

        Raises:
            ArchitectureError: the layer does not fit.
        """

    def parameters(self, shape: Shape) -> int:
        """How many numbers this layer learns on an input of ``shape``."""
        return 0

    def flops(self, shape: Shape) -> int:
        """Floating-point operations of one forward pass over one input of ``shape``.

        Convolutions and linear maps only, a multiplication and an addition being two: the convention of
        ``torch.utils.flop_counter``.
        """
        return 0

    def to_dict(self) -> dict[str, Any]:
        """The layer's type and the settings that differ from their defaults: new settings keep old ids."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {f.name: values[f.name] for f in fields(self) if values[f.name] != f.default}
        return {"type": type(self).__name__, **kept}

    def __str__(self) -> str:
        """A few words for a table, as in ``Conv2d 32 3×3 relu``."""
        return type(self).__name__

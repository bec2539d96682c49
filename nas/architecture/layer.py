"""The base classes of layers, and the declarations of their settings.

A shape is ``(channels, *sizes)`` for a map, with two sizes for an image and one for a sequence, and
``(features,)`` for a vector; the batch is never part of it. A layer that does not fit its input raises
`ArchitectureError` with the rule that it breaks; the architecture adds the position.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

from nas.errors import ArchitectureError, PluginError, plain, quoted, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

Shape = tuple[int, ...]
Steps = TypeVar("Steps", int, "Tensor")  # the steps of one series, or of each series of a batch

MAX_INPUTS = 64  # of one layer: far more than any known network merges


def show(shape: Shape) -> str:
    """A shape as people read it, channels last: ``26×26×32``."""
    return "×".join(str(size) for size in (*shape[1:], shape[0]))


def setting(allows: Callable[[Any], bool], words: str, default: Any = MISSING) -> Any:
    """A field of a layer: a test of the values that it allows, and their description for error messages."""
    return field(default=default, metadata={"allows": allows, "words": words})


def count(default: Any = MISSING) -> Any:
    """A setting that is a number of things."""
    # The upper limit is far beyond any sensible layer, and keeps a hostile file from asking for terabytes.
    return setting(lambda v: type(v) is int and 1 <= v <= 65_536, "a whole number from 1 to 65536", default)


def fraction(default: Any = MISSING) -> Any:
    """A setting from 0 to below 1."""
    return setting(lambda v: type(v) is float and 0 <= v < 1, "a fraction from 0 to below 1", default)


def one_of(*names: str, default: str) -> Any:
    """A setting that is one of a few strings."""
    return setting(lambda v: v in names, f"one of {', '.join(names)}", default)


def switch(*, default: bool = False) -> Any:
    """A setting that is on or off."""
    return setting(lambda v: type(v) is bool, "true or false", default)


def channels_of(shape: Shape) -> int:
    """The channels of a map.

    Raises:
        ArchitectureError: it is a vector.
    """
    if len(shape) < 2:
        raise ArchitectureError(f"it needs a map (height×width×channels), and gets {shape[0]} features")
    return shape[0]


def image_of(shape: Shape) -> Shape:
    """The shape of an image (channels, height, width).

    Raises:
        ArchitectureError: it is a vector, or a map with another number of sizes.
    """
    channels_of(shape)
    if len(shape) != 3:
        raise ArchitectureError(f"it needs an image (height×width×channels), and gets {show(shape)}")
    return shape


def sequence_of(shape: Shape) -> Shape:
    """The shape of a sequence (channels, time).

    Raises:
        ArchitectureError: it is a vector or an image.
    """
    if len(shape) == 1:
        given = f"{shape[0]} features; if they are tokens, put Embedding before it"
        raise ArchitectureError(f"it needs a sequence (time×channels), and gets {given}")
    if len(shape) != 2:
        raise ArchitectureError(f"it needs a sequence (time×channels), and gets {show(shape)}")
    return shape


@cache
def _fields(kind: type[Layer]) -> tuple[Field[Any], ...]:
    return fields(kind)


def _frozen(value: Any) -> Any:
    """Lists as tuples, at any depth."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


@cache
def _rules(kind: type[Layer]) -> list[tuple[str, str, type | None, Callable[[Any], bool]]]:
    """For each setting its name, the words for its values, their type if it has a default, and their test."""
    rules = []
    for known in _fields(kind):
        if "allows" not in known.metadata:
            raise PluginError(f"{kind.__name__}: declare {known.name} with setting, count …")
        expected = None if known.default is MISSING else type(known.default)
        rules.append((known.name, known.metadata["words"], expected, known.metadata["allows"]))
    return rules


def _allows(allows: Callable[[Any], bool], expected: type | None, value: Any) -> bool:
    """Whether a setting may have a value: 5.0 is not 5, because equal layers must have equal ids."""
    if expected is not None and type(value) is not expected:
        return False
    try:
        return bool(allows(value))
    except Exception:  # noqa: BLE001  # an author's test that compares a stranger's text with a number
        return False


def _are_positions(value: Any) -> bool:
    return type(value) is tuple and len(value) <= MAX_INPUTS and all(type(i) is int and i >= 0 for i in value)


_POSITIONS = {"allows": _are_positions, "words": "a list of at most 64 positions of earlier layers (0: the input)"}


@dataclass(frozen=True)
class Layer(ABC):
    """One layer of a network: plain, frozen data. Its class holds everything that is known about its kind.

    A subclass is a frozen dataclass whose fields are settings (`count`, `one_of`, `switch` …). It must define
    `output_shape` and `module`, and may define `parameters` and `flops`, which are then known without PyTorch. A
    layer of several inputs is a `Merge`.
    """

    role: ClassVar[Literal["convolution", "pooling", "dense", "other"]] = "other"  # its colour in a drawing
    mark: ClassVar[str] = ""  # SVG that is drawn on its picture, around (0, 0), in pixels

    # Positions of earlier layers, from 1; 0 is the network's input. Empty: the layer before this one.
    inputs: tuple[int, ...] = field(default=(), kw_only=True, metadata=_POSITIONS)

    def __post_init__(self) -> None:
        """Refuse settings that are not allowed; lists, which come from JSON, become tuples."""
        for name, words, expected, allows in _rules(type(self)):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, value := _frozen(value))
            if not _allows(allows, expected, value):
                rule = f"{name} must be {words}, not {quoted(value)}"
                raise ArchitectureError(f"{type(self).__name__}: {rule}")

    @classmethod
    def settings(cls) -> list[Field[Any]]:
        """The settings of this kind of layer, in order: all fields but ``inputs``."""
        return [known for known in _fields(cls) if known.name != "inputs"]

    @property
    def is_built_in(self) -> bool:
        """Whether the layer comes from this package, and not from a plugin."""
        return type(self).__module__.startswith("nas.architecture.")

    @property
    def is_causal(self) -> bool:
        """Whether no step of a sequence depends on a later one; False where it is not known."""
        return False

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of ``shape``.

        Raises:
            ArchitectureError: the layer does not fit.
        """

    def parameters(self, shape: Shape) -> int:
        """The number of values that this layer learns on an input of ``shape``; by default those of its module."""
        return _counted(self, shape)[0]

    def flops(self, shape: Shape) -> int:
        """Floating-point operations of a forward pass over one input of ``shape``; by default those of its module.

        As in ``torch.utils.flop_counter``, only convolutions and matrix products count, and a multiplication and
        an addition are two operations.
        """
        return _counted(self, shape)[1]

    def filled(self, length: Steps, shape: Shape) -> Steps:
        """How many steps of the output a series fills that fills ``length`` steps of the input, of ``shape``.

        By default as many. The result may be below 1, and is then taken as 1. A tensor of lengths has type int64.
        """
        return length

    @abstractmethod
    def module(self, shape: Shape) -> nn.Module:
        """A new PyTorch module with random weights, for batches of the shape (N, *shape).

        The children of an ``nn.Sequential`` become modules of the network, so that they can be rearranged. Of them
        only the first may change the number of steps of a sequence. A module with ``is_masked = True`` is called
        with a second argument, which is None or tells the steps that each series has (see
        `nas.architecture.sequence_modules`).
        """

    def words(self) -> str:
        """The layer in a table: by default its type and the settings that differ from their defaults."""
        values = ((known, getattr(self, known.name)) for known in self.settings())
        changed = [f"{known.name}={value}" for known, value in values if value != known.default]
        return " ".join([type(self).__name__, *changed])

    def __str__(self) -> str:
        """The words, and the inputs if they are named: ``Add ← 3, 5``."""
        named = ", ".join("input" if i == 0 else str(i) for i in self.inputs)
        words = plain(" ".join(self.words().split()))  # a setting may be any text: it stands in files and tables
        return f"{words} ← {named}" if named else words

    def to_dict(self) -> dict[str, Any]:
        """The layer's type and the settings that differ from their defaults: a new setting changes no old id."""
        values = ((known, getattr(self, known.name)) for known in _fields(type(self)))
        changed = {known.name: value for known, value in values if value != known.default}
        return {"type": type(self).__name__, **changed}

    @classmethod
    def from_settings(cls, values: dict[str, Any]) -> Self:
        """The layer with settings from JSON.

        Raises:
            ArchitectureError: an unknown setting, a missing one, or a value out of range.
        """
        names = [name for name, *_ in _rules(cls)]
        for name in values:
            if name not in names:
                known = [*names[1:], names[0]]  # ``inputs`` last
                raise ArchitectureError(unknown(f"{cls.__name__} setting", name, known))
        missing = [name for name, _, expected, _ in _rules(cls) if expected is None and name not in values]
        if missing:
            raise ArchitectureError(f"{cls.__name__}: {missing[0]} is missing")
        return cls(**values)


class Plain(Layer):
    """A layer without parameters, convolutions and matrix products."""

    def parameters(self, *shapes: Shape) -> int:
        """Always 0."""
        return 0

    def flops(self, *shapes: Shape) -> int:
        """Always 0."""
        return 0


class Merge(Layer):
    """A layer of two or more inputs: its methods take as many shapes, and its module as many tensors."""

    is_symmetric: ClassVar[bool] = False  # whether the order of the inputs makes no difference

    @abstractmethod
    def output_shape(self, *shapes: Shape) -> Shape:
        """The shape of the output for these inputs.

        Raises:
            ArchitectureError: they do not fit together.
        """

    def parameters(self, *shapes: Shape) -> int:
        """The number of values that this layer learns (see `Layer.parameters`)."""
        return _counted(self, *shapes)[0]

    def flops(self, *shapes: Shape) -> int:
        """Floating-point operations of one forward pass (see `Layer.flops`)."""
        return _counted(self, *shapes)[1]

    @abstractmethod
    def module(self, *shapes: Shape) -> nn.Module:
        """A new PyTorch module, called with one batch for each input."""


@lru_cache(maxsize=10_000)
def _counted(layer: Layer, *shapes: Shape) -> tuple[int, int]:
    """The parameters and the operations of a layer's module, counted without any memory for its weights."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # A trial follows from its job: whether a layer was counted before must not change the random numbers.
    with torch.random.fork_rng(devices=[]), torch.device("meta"), FlopCounterMode(display=False) as counter:
        module = layer.module(*shapes).eval()
        with torch.no_grad():
            module(*(torch.zeros(1, *shape) for shape in shapes))
    return sum(parameter.numel() for parameter in module.parameters()), counter.get_total_flops()

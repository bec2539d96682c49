"""A network as plain data: its layers with their inputs, its canonical JSON, its id."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from nas import checks
from nas.architecture.layers import Dense, Layer, Merge, Pretrained, Shape, layer_from_dict, show
from nas.errors import ArchitectureError, NasError, TooLargeError, quoted
from nas.files import read_small

FORMAT = 1  # the version of the JSON, written into every file
MAX_LAYERS = 1_000
LARGEST_FILE = 4 * 2**20  # bytes; 1,000 layers and 65,536 classes with names of 30 letters have 3 · 10⁶
# The limits of every network: settings that are harmless one by one (`count`) describe terabytes together.
# The largest of torchvision's models has 6.4 · 10⁸ parameters (regnet_y_128gf), the slowest does 2.0 · 10¹² flops
# (vit_h_14, on 518×518). VGG-16 on 224×224 computes 1.4 · 10⁷ values for an image; 2²⁶ are 256 MiB.
LARGEST = {"parameters": 10**9, "flops": 10**13, "output values for one input": 2**26}


@dataclass(frozen=True)
class Row:
    """One row of an architecture's table: a layer in its place."""

    layer: Layer
    inputs: tuple[int, ...]  # the positions of the layers that it follows; 0 is the network's input
    shape: Shape  # of its output
    parameters: int
    flops: int  # of one forward pass over one image


@dataclass(frozen=True)
class Architecture:
    """The layers of a network, without its input shape and its number of classes.

    A layer follows the one before it, unless it names its ``inputs``: positions of earlier layers, counted from 1
    as in error messages; 0 is the network's input. So a network is a directed graph without cycles; most are a
    chain. The last layer, ``Dense(classes)``, is implied, and follows the last of ``layers``.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        """Accept any sequence of layers, and check how they are connected.

        Raises:
            ArchitectureError: a layer has too few or too many inputs, or a later one, or no layer follows it.
        """
        object.__setattr__(self, "layers", tuple(self.layers))
        if len(self.layers) > MAX_LAYERS:
            raise ArchitectureError(f"{len(self.layers)} layers are more than {MAX_LAYERS}")
        for position, layer in enumerate(self.layers, 1):
            if not isinstance(layer, Layer):
                raise ArchitectureError(f"layer {position} is not a layer but {quoted(layer)}")
        if any(layer.inputs or isinstance(layer, Merge) for layer in self.layers):
            self._check_graph()

    def _check_graph(self) -> None:
        layers = list(self.layers)
        followed = {len(layers)}
        for position, layer in enumerate(layers, 1):
            if layer.inputs == (position - 1,):  # the default is left out, so that equal networks are equal
                layers[position - 1] = replace(layer, inputs=())
            inputs = layer.inputs or (position - 1,)
            if isinstance(layer, Merge) and layer.is_symmetric and inputs != tuple(sorted(inputs)):
                layers[position - 1] = replace(layer, inputs=tuple(sorted(inputs)))
            followed.update(inputs)
            place = f"layer {position} ({layer})"
            if max(inputs) >= position:
                earlier = "0 (the network's input)" + f" to {position - 1}" * (position > 1)
                later = f"{place} names layer {max(inputs)} as an input, which does not come before it"
                raise ArchitectureError(f"{later}: name {earlier}")
            if isinstance(layer, Merge) and len(inputs) < 2:
                raise ArchitectureError(f'{place} merges two inputs or more: name them, as in "inputs": [1, 2]')
            if not isinstance(layer, Merge) and len(inputs) > 1:
                raise ArchitectureError(f"{place} takes one input, and names {len(inputs)}: put Add before it")
        for position, layer in enumerate(layers, 1):
            if position not in followed:
                raise ArchitectureError(f"layer {position} ({layer}) leads nowhere: no later layer names it")
        object.__setattr__(self, "layers", tuple(layers))

    @property
    def inputs(self) -> list[tuple[int, ...]]:
        """For each layer the positions of the layers that it follows."""
        return [layer.inputs or (position,) for position, layer in enumerate(self.layers)]

    @property
    def is_chain(self) -> bool:
        """Whether every layer follows the one before it."""
        return not any(layer.inputs for layer in self.layers)

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits: equal networks have equal ids, on any machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    @property
    def is_built_in(self) -> bool:
        """Whether all layers come from this package and none from torchvision: their random numbers are known."""
        return all(layer.is_built_in for layer in self.layers) and not self.backbones

    @property
    def backbones(self) -> list[Pretrained]:
        """The layers that are models of torchvision."""
        return [layer for layer in self.layers if isinstance(layer, Pretrained)]

    def table(self, input_shape: Shape, classes: int) -> list[Row]:
        """Every layer with its output shape, parameters and operations, the implied last one included.

        It needs no memory for weights, so it is called before a network is built.

        Raises:
            ArchitectureError: a layer does not fit its input, or makes the network larger than `LARGEST`; the
                message names its position, its input and the rule.
        """
        try:
            return list(_table(self, input_shape, classes))
        except TypeError:  # a setting of a plugin's layer may be a dictionary, which cannot be looked up
            return list(_table.__wrapped__(self, input_shape, classes))

    def parameters(self, input_shape: Shape, classes: int) -> int:
        """The number of values that the network learns."""
        return sum(row.parameters for row in self.table(input_shape, classes))

    def flops(self, input_shape: Shape, classes: int) -> int:
        """Floating-point operations of one forward pass over one image (see `Layer.flops`)."""
        return sum(row.flops for row in self.table(input_shape, classes))

    def to_dict(self) -> dict[str, Any]:
        """The canonical form as plain data."""
        return {"format": FORMAT, "layers": [layer.to_dict() for layer in self.layers]}

    def to_json(self) -> str:
        """The canonical form: one line, keys sorted, settings at their defaults left out."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: object) -> Architecture:
        """The architecture that `to_dict` wrote.

        Raises:
            ArchitectureError: not an architecture, or a layer is not valid; the message names its position.
        """
        if not isinstance(data, dict) or not isinstance(data.get("layers"), list):
            raise ArchitectureError('an architecture is a JSON object with a list of "layers"')
        if data.get("format", FORMAT) != FORMAT:
            raise ArchitectureError(f"format {quoted(data['format'])} is not known; this version reads {FORMAT}")
        layers = []
        for position, layer in enumerate(data["layers"], 1):
            try:
                layers.append(layer_from_dict(layer))
            except ArchitectureError as error:
                raise type(error)(f"layer {position}: {error}") from None
        return cls(tuple(layers))

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """The architecture in a JSON text.

        Raises:
            ArchitectureError: not JSON, or not an architecture.
        """
        try:
            data = checks.parse(text)
        except ValueError as error:
            raise ArchitectureError(str(error)) from None
        return cls.from_dict(data)

    @classmethod
    def read(cls, path: Path) -> Architecture:
        """The architecture in a file, which need not be trusted.

        Raises:
            ArchitectureError: it cannot be read, or is not an architecture.
        """
        data = read_dict(path)
        try:
            return cls.from_dict(data)
        except ArchitectureError as error:
            raise ArchitectureError(f"{path}: {error}") from None


def _check_shape(shape: object) -> None:
    """Refuse what a plugin's layer cannot make."""
    if not (type(shape) is tuple and shape and all(type(size) is int and size >= 1 for size in shape)):
        raise ArchitectureError(f"its output_shape is {quoted(shape)}: it must be a tuple of whole numbers")


def read_dict(path: Path) -> Any:
    """The JSON object in the file of an architecture; it may have more keys than `Architecture.from_dict` reads.

    Raises:
        ArchitectureError: it cannot be read, is too large, or is not JSON.
    """
    try:
        return checks.parse(read_small(path, LARGEST_FILE))
    except NasError as error:
        raise ArchitectureError(str(error)) from None
    except ValueError as error:
        raise ArchitectureError(f"{path}: {error}") from None


@lru_cache(maxsize=512)  # a search asks several times for the table of a candidate, and of the parents
def _table(architecture: Architecture, input_shape: Shape, classes: int) -> tuple[Row, ...]:
    rows: list[Row] = []
    shapes = [input_shape]
    totals = dict.fromkeys(LARGEST, 0)
    last = (Dense(classes), (len(architecture.layers),))
    nodes = (*zip(architecture.layers, architecture.inputs, strict=True), last)
    for position, (layer, inputs) in enumerate(nodes, 1):
        given = [shapes[i] for i in inputs]
        try:
            output = layer.output_shape(*given)
            if not layer.is_built_in:
                _check_shape(output)
            row = Row(layer, inputs, output, layer.parameters(*given), layer.flops(*given))
            for name, size in zip(LARGEST, (row.parameters, row.flops, math.prod(output)), strict=True):
                totals[name] += size
                if totals[name] > LARGEST[name]:
                    total = f"{totals[name]:,} {name}; {LARGEST[name]:,} are the most"
                    raise ArchitectureError(f"up to here the network has {total}")  # noqa: TRY301
        except Exception as error:
            if layer.is_built_in and not isinstance(error, ArchitectureError):
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            reason = str(error) if isinstance(error, ArchitectureError) else reason
            where = " and ".join(map(show, given))
            raise ArchitectureError(f"layer {position} ({layer}) on {where}: {reason}") from None
        rows.append(row)
        shapes.append(output)
    return tuple(rows)


def distance(first: Architecture, second: Architecture) -> float:
    """The number of layers to add, remove or change to turn one network into the other; 0 for equal networks.

    An edit distance (Levenshtein, 1966), in which a changed layer costs the fraction of its settings that differ.
    The inputs of a layer count as one setting, relative to its position, so that one more layer costs only one.
    """
    ours, theirs = _relative(first), _relative(second)
    row = [float(j) for j in range(len(theirs) + 1)]
    for i, node in enumerate(ours, 1):
        diagonal, row[0] = row[0], float(i)
        for j, other in enumerate(theirs, 1):
            changed = diagonal + _difference(node, other)
            diagonal = row[j]
            row[j] = min(row[j] + 1, row[j - 1] + 1, changed)
    return row[-1]


Node = tuple[Layer, tuple[int, ...]]  # a layer, and how many positions before it each of its inputs stands


def _relative(architecture: Architecture) -> list[Node]:
    pairs = zip(architecture.layers, architecture.inputs, strict=True)
    return [(layer, tuple(position - i for i in inputs)) for position, (layer, inputs) in enumerate(pairs, 1)]


def _difference(node: Node, other: Node) -> float:
    (layer, inputs), (other_layer, other_inputs) = node, other
    if type(layer) is not type(other_layer):
        return 1.5  # less than a removal and an addition, because the position is the same
    names = [known.name for known in layer.settings()]
    changed = len([name for name in names if getattr(layer, name) != getattr(other_layer, name)])
    return (changed + (inputs != other_inputs)) / (len(names) + 1)


@dataclass(frozen=True)
class Limits:
    """The shape of the images, the number of classes, and how large a network may be."""

    input_shape: Shape = (1, 28, 28)
    classes: int = 10
    max_parameters: int | None = None
    max_flops: int | None = None  # of one forward pass over one image

    def check(self, architecture: Architecture) -> None:
        """Do nothing for a network that fits.

        Raises:
            ArchitectureError: a layer does not fit, or the network is too large.
        """
        rows = architecture.table(self.input_shape, self.classes)
        sizes = {name: sum(getattr(row, name) for row in rows) for name in ("parameters", "flops")}
        most = {"parameters": self.max_parameters, "flops": self.max_flops}
        above = {name: size for name, size in sizes.items() if (limit := most[name]) is not None and size > limit}
        if above:
            raise TooLargeError(above, most)

    def allow(self, architecture: Architecture) -> bool:
        """Whether the network fits."""
        try:
            self.check(architecture)
        except ArchitectureError:
            return False
        return True

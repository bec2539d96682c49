"""A network as plain data: its layers in order, its canonical JSON, its id."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from nas.architecture.layers import Dense, Layer, Shape, layer_from_dict, show
from nas.errors import ArchitectureError

FORMAT = 1  # the version of the JSON, written into every file
MAX_LAYERS = 1_000


@dataclass(frozen=True)
class Row:
    """One line of an architecture's table: a layer where it stands."""

    layer: Layer
    shape: Shape  # its output
    parameters: int
    flops: int  # of one forward pass over one image


@dataclass(frozen=True)
class Architecture:
    """The layers of a network, without its input shape and its classes, so that it can travel.

    The last layer, ``Dense(classes)``, is implied.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        """Accept any sequence of layers."""
        object.__setattr__(self, "layers", tuple(self.layers))
        for position, layer in enumerate(self.layers, 1):
            if not isinstance(layer, Layer):
                raise ArchitectureError(f"layer {position} is not a layer but {layer!r}")
        if len(self.layers) > MAX_LAYERS:
            raise ArchitectureError(f"{len(self.layers)} layers are more than {MAX_LAYERS}")

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits: equal networks have equal ids, on any machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def table(self, input_shape: Shape, classes: int) -> list[Row]:
        """Every layer with its output shape, parameters and operations, the implied last one included.

        Raises:
            ArchitectureError: a layer does not fit; names its position, its input and the rule.
        """
        rows = []
        shape = input_shape
        for position, layer in enumerate((*self.layers, Dense(classes)), 1):
            try:
                output = layer.output_shape(shape)
                row = Row(layer, output, layer.parameters(shape), layer.flops(shape))
            except ArchitectureError as error:
                raise ArchitectureError(f"layer {position} ({layer}) on {show(shape)}: {error}") from None
            rows.append(row)
            shape = output
        return rows

    def parameters(self, input_shape: Shape, classes: int) -> int:
        """How many numbers the network learns."""
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
        """The architecture that `to_dict` wrote down.

        Raises:
            ArchitectureError: not an architecture, or a layer of it cannot be; names its position.
        """
        if not isinstance(data, dict) or not isinstance(data.get("layers"), list):
            raise ArchitectureError('an architecture is a JSON object with a list of "layers"')
        if data.get("format", FORMAT) != FORMAT:
            raise ArchitectureError(f"format {data['format']!r} is not known here; this version reads {FORMAT}")
        if len(data["layers"]) > MAX_LAYERS:
            raise ArchitectureError(f"{len(data['layers'])} layers are more than {MAX_LAYERS}")
        layers = []
        for position, layer in enumerate(data["layers"], 1):
            try:
                layers.append(layer_from_dict(layer))
            except ArchitectureError as error:
                raise ArchitectureError(f"layer {position}: {error}") from None
        return cls(tuple(layers))

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """The architecture that `to_json` wrote down, or a person.

        Raises:
            ArchitectureError: not JSON, or not an architecture.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArchitectureError(f"this is no JSON: {error}") from None
        return cls.from_dict(data)


def distance(first: Architecture, second: Architecture) -> float:
    """How many layers have to be added, removed or changed to get from one to the other; 0 for equal networks.

    An edit distance (Levenshtein, 1966), in which a layer whose settings differ costs the share of them that do.
    """
    row = [float(j) for j in range(len(second.layers) + 1)]
    for i, layer in enumerate(first.layers, 1):
        diagonal, row[0] = row[0], float(i)
        for j, other in enumerate(second.layers, 1):
            changed = diagonal + _difference(layer, other)
            diagonal = row[j]
            row[j] = min(row[j] + 1, row[j - 1] + 1, changed)
    return row[-1]


def _difference(layer: Layer, other: Layer) -> float:
    if type(layer) is not type(other):
        return 1.5  # less than a removal and an addition: the position counts for something
    names = [f.name for f in fields(layer)]
    changed = [name for name in names if getattr(layer, name) != getattr(other, name)]
    return len(changed) / (len(names) + 1)


@dataclass(frozen=True)
class Limits:
    """What a network has to fit: its images, its classes, and how large it may be."""

    input_shape: Shape = (1, 28, 28)
    classes: int = 10
    max_parameters: int | None = None
    max_flops: int | None = None  # of one forward pass over one image

    def check(self, architecture: Architecture) -> None:
        """Return for a network that fits.

        Raises:
            ArchitectureError: a layer that does not fit, or a network that is too large.
        """
        rows = architecture.table(self.input_shape, self.classes)
        for what, limit, found in (
            ("parameters", self.max_parameters, sum(row.parameters for row in rows)),
            ("flops", self.max_flops, sum(row.flops for row in rows)),
        ):
            if limit is not None and found > limit:
                raise ArchitectureError(f"it has {found:,} {what}, more than the {limit:,} allowed")

    def allow(self, architecture: Architecture) -> bool:
        """Whether the network fits."""
        try:
            self.check(architecture)
        except ArchitectureError:
            return False
        return True

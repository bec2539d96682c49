"""The forward pass, as Python source, of a network for series of unequal lengths.

It computes what `nas.training.network.Network` does: NaN after the end of a series becomes zero, before and after
each layer, and the modules that need it are told where each series ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from nas.architecture.architecture import Row
from nas.architecture.layers import Layer, Shape
from nas.errors import NasError
from nas.winner.best import Description

if TYPE_CHECKING:
    from torch import nn

    from nas.winner.export.constructed import Source


def masked_forward(
    description: Description, source: Source, layers: Iterable[tuple[Row, Mapping[str, nn.Module]]]
) -> str:
    """The lines of the forward pass.

    Args:
        description: of the network.
        source: gets the definitions that the lines use.
        layers: each with its modules, as they are in the list ``layers`` of the file.

    Raises:
        NasError: the lengths of the series after a layer follow no simple rule.
    """
    from nas.training.network import _before

    source.imports["functional"] = "from torch.nn import functional"
    return "".join(_lines(description, source.name(_before), layers))


def _lines(
    description: Description, before: str, layers: Iterable[tuple[Row, Mapping[str, nn.Module]]]
) -> Iterator[str]:
    is_chain = description.architecture.is_chain
    shapes = [description.input_shape]
    number = 0  # of a module in a chain
    x, length, mask = ("x", "length", "mask") if is_chain else ("x0", "length0", "mask0")
    steps = description.input_shape[1]
    yield f"        if x.shape[2] > {steps}:\n"
    yield f'            raise ValueError("a series has more than {steps} steps")\n'
    yield f"        x = functional.pad(x, (0, {steps} - x.shape[2]), value=torch.nan)\n"
    yield f"        {x} = (x - self.mean) / self.std\n"
    yield f"        {length} = (~{x}[:, 0].isnan()).sum(1)  # (N,): the steps of each series\n"
    yield f"        {mask} = {before}({length}, {steps})\n"
    yield f"        {x} = {x}.masked_fill(~{mask}, 0)\n"
    for position, (row, parts) in enumerate(layers, 1):
        first = shapes[row.inputs[0]]
        given = [x] if is_chain else [f"x{i}" for i in row.inputs]
        was_long, was_mask = (length, mask) if is_chain else (f"length{row.inputs[0]}", f"mask{row.inputs[0]}")
        if not is_chain:
            x, length, mask = f"x{position}", f"length{position}", f"mask{position}"
        if len(row.inputs) > 1 and len(first) == 2:
            yield f"        {length} = {was_long}\n"
            for i in row.inputs[1:]:
                yield f"        {length} = torch.maximum({length}, length{i})\n"
            yield f"        {mask} = {before}({length}, {first[1]})\n"
            was_long, was_mask = length, mask
        for place, part in enumerate(parts.values()):
            inside = f"{number}" if is_chain else f"{position - 1}" + f"][{place}" * (len(parts) > 1)
            number += 1
            knows = len(first) == 2 and getattr(part, "is_masked", False)
            yield f"        {x} = self.layers[{inside}]({', '.join([*given, *[was_mask] * knows])})\n"
            given = [x]
            if place == 0 and len(first) == len(row.shape) == 2 and row.shape[1] != first[1]:
                rule = rule_of(row.layer, first, was_long)
                yield f"        {length} = {rule}.clamp(1, {row.shape[1]})\n"
                yield f"        {mask} = {before}({length}, {row.shape[1]})\n"
                was_long, was_mask = length, mask
        if not parts:
            yield f"        {x} = {given[0]}\n"
        if len(row.shape) == 2 and len(first) == 2:
            if not is_chain and was_mask != mask:
                yield f"        {length}, {mask} = {was_long}, {was_mask}\n"
            yield f"        {x} = {x}.masked_fill(~{mask}, 0)\n"
        shapes.append(row.shape)
    yield f"        return {x}\n"


def rule_of(layer: Layer, shape: Shape, length: str) -> str:
    """How many steps of the output a series fills, as an expression: ``((length + 2) // 4)``.

    Args:
        layer: changes the number of steps.
        shape: of its input.
        length: the name of the number of steps that a series fills in the input.

    Raises:
        NasError: no such rule says the same as `Layer.filled`.
    """
    lengths = range(1, shape[1] + 1)
    filled = [layer.filled(one, shape) for one in lengths]
    stride = max(Counter(filled).values())  # so often each number occurs that is not at an end
    for shift in range(stride):
        add = filled[-1] * stride - lengths[-1] + shift
        if all((one + add) // stride == number for one, number in zip(lengths, filled, strict=True)):
            inner = f"{length} {'+' if add > 0 else '-'} {abs(add)}" if add else length
            return f"({inner})" if stride == 1 else f"(({inner}) // {stride})"
    raise NasError(f"{layer} has no simple rule for the lengths of series")

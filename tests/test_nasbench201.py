"""The example space: the cells of NAS-Bench-201, under the names that its table has."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from nas import plugins
from nas.architecture.architecture import Limits
from nas.architecture.layers import Cell, Conv2d, GlobalAveragePool, ResidualBlock

PLUGINS = Path(__file__).parent.parent / "plugins"


@pytest.fixture
def space() -> Any:
    return plugins.find("space", "nasbench201", [PLUGINS])(cells=2, filters=4).within(Limits())


def test_a_cell_has_the_name_of_the_benchmark(space: Any) -> None:
    candidate = space.sample(Random(0))
    [cell] = {layer for layer in candidate.architecture.layers if isinstance(layer, Cell)}
    a, b, c, d, e, f = cell.operations
    assert space.cell_string(candidate.choices) == f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
    assert list(candidate.choices) == [
        "node1/from0", "node2/from0", "node2/from1", "node3/from0", "node3/from1", "node3/from2",
    ]  # fmt: skip


def test_the_skeleton_has_three_stages(space: Any) -> None:
    layers = space.sample(Random(1)).architecture.layers
    assert [type(layer) for layer in layers[:8]] == [
        Conv2d, Cell, Cell, ResidualBlock, Cell, Cell, ResidualBlock, Cell,
    ]  # fmt: skip
    assert [layer.filters for layer in layers if hasattr(layer, "filters")] == [4, 8, 16]
    assert isinstance(layers[-1], GlobalAveragePool)


def test_each_cell_has_24_neighbours(space: Any) -> None:
    rng = Random(2)
    assert len({one.architecture.id for one in space.neighbours(space.sample(rng), rng)}) == 24

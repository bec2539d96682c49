"""The space of NAS-Bench-201, in which 15,625 networks have been trained and tabulated, as one that is trained."""

from collections.abc import Mapping

from nas.architecture.architecture import Architecture
from nas.architecture.layers import (
    OPERATIONS,
    Activation,
    BatchNorm,
    Cell,
    Conv2d,
    GlobalAveragePool,
    Layer,
    ResidualBlock,
)
from nas.spaces.space import Choose, Scalar, SearchSpace

EDGES = tuple((node, source) for node in (1, 2, 3) for source in range(node))  # node 0 is the cell's input


class NasBench201(SearchSpace):
    """Six edges of a cell, each one of five operations, repeated in three stages (Dong and Yang, 2020).

    Args:
        cells: in each stage (the benchmark has 5).
        filters: of the first stage; each stage has twice as many as the one before (the benchmark has 16).
    """

    def __init__(self, cells: int = 1, filters: int = 8) -> None:
        self.cells = cells
        self.filters = filters

    def build(self, choose: Choose) -> Architecture:
        cell = Cell(tuple(choose.suggest_categorical(question(*edge), list(OPERATIONS)) for edge in EDGES))
        stage = [cell] * self.cells
        layers: list[Layer] = [Conv2d(self.filters, 3, padding="same", batch_norm=True), *stage]
        for filters in (2 * self.filters, 4 * self.filters):
            layers += [ResidualBlock(filters, stride=2), *stage]
        return Architecture((*layers, BatchNorm(), Activation("relu"), GlobalAveragePool()))

    @staticmethod
    def cell_string(choices: Mapping[str, Scalar]) -> str:
        """The benchmark's name of the cell that a candidate's choices describe, for a look-up in its table."""
        nodes = [[f"{choices[question(node, source)]}~{source}" for source in range(node)] for node in (1, 2, 3)]
        return "+".join(f"|{'|'.join(edges)}|" for edges in nodes)


def question(node: int, source: int) -> str:
    """What an edge is called."""
    return f"node{node}/from{source}"

"""The search space of NAS-Bench-201, whose 15,625 networks are trained here instead of looked up in its table."""

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
    """A cell with six edges, each one of five operations, repeated in three stages (Dong and Yang, 2020).

    Args:
        cells: the number of cells in each stage (5 in the benchmark).
        filters: the filters of the first stage, which double in each further stage (16 in the benchmark).
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
        """The name of a candidate's cell in the table of the benchmark."""
        nodes = [[f"{choices[question(node, source)]}~{source}" for source in range(node)] for node in (1, 2, 3)]
        return "+".join(f"|{'|'.join(edges)}|" for edges in nodes)


def question(node: int, source: int) -> str:
    """The name of the question for an edge."""
    return f"node{node}/from{source}"

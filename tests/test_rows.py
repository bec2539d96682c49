"""MNIST as series of rows: the same digits, in the same split."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.data.dataset import Split
from nas.data.mnist import Mnist
from nas.data.mnist5k import Mnist5k
from nas.data.rows import Mnist5kRows, MnistRows, rows_of


def test_a_row_is_a_step_and_a_column_is_a_channel() -> None:
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 1, 3, 4)
    series = rows_of(Split.of(images, np.array([0, 1])))
    assert series.inputs.dtype == torch.float32
    assert series.inputs.shape == (2, 4, 3)
    assert series.inputs[0, :, 1].tolist() == images[0, 0, 1].tolist()


def test_the_sample_has_the_split_of_its_images() -> None:
    images, series = Mnist5k([Path()]), Mnist5kRows([Path()])
    data, rows = images.load(), series.load()
    assert (rows.kind, rows.input_shape, rows.is_padded) == ("series", (28, 28), False)
    for one, other in (
        (data.train, rows.train), (data.validation, rows.validation), (images.load_test(), series.load_test()),
    ):  # fmt: skip
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.inputs[:, 0].float(), other.inputs.transpose(1, 2))
    assert rows.fingerprint == Mnist5kRows([Path()]).load().fingerprint != data.fingerprint
    series.check_test(rows)


@pytest.mark.mnist
def test_the_whole_has_the_split_of_its_images() -> None:
    folders = [Path(os.environ["NAS_DATA_DIR"])]
    images, series = Mnist(folders).load_test(), MnistRows(folders).load_test()
    assert torch.equal(images.labels, series.labels)
    assert torch.equal(images.inputs[:, 0].float(), series.inputs.transpose(1, 2))
    assert MnistRows(folders).load().input_shape == (28, 28)


def test_both_are_registered() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    found = project["entry-points"]["nas.datasets"]
    for plugin in (MnistRows, Mnist5kRows):
        assert found[plugin.name] == f"{plugin.__module__}:{plugin.__name__}"

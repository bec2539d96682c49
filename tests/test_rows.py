"""MNIST as series of rows: the same digits, in the same split."""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.data.dataset import Split
from nas.data.idx import File
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


def test_files_in_the_form_of_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random, files = np.random.default_rng(0), []
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    for file in Mnist.files:
        count = 200 if file.name.startswith("train") else 50
        values = random.integers(0, 256, count * 784, np.uint8) if "images" in file.name else np.arange(count) % 10
        content = bytes(16 if "images" in file.name else 8) + values.astype(np.uint8).tobytes()
        (tmp_path / "MNIST/raw" / file.name).write_bytes(content)
        files.append(File(file.name, len(content), hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(Mnist, "files", tuple(files))
    monkeypatch.setattr(Mnist, "sizes", (180, 20))
    images, series = Mnist([tmp_path]), MnistRows([tmp_path])
    data, rows = images.load(), series.load()
    assert (rows.name, rows.input_shape, len(rows.train), len(rows.validation)) == (
        "mnist-rows",
        (28, 28),
        180,
        20,
    )
    assert torch.equal(data.train.inputs[:, 0].float(), rows.train.inputs.transpose(1, 2))
    assert torch.equal(images.load_test().inputs[:, 0].float(), series.load_test().inputs.transpose(1, 2))
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

"""Writes nas/architecture/backbones.csv: the sizes and counts of torchvision's classification models.

Run ``python experiments/backbones.py`` when torchvision has got new models; it takes four minutes and no weights.
"""

from __future__ import annotations

import csv

import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from nas.architecture import backbones
from nas.architecture.backbones import Facts
from nas.architecture.modules import headless

SMALLEST = 28  # pixels: nobody's images are smaller than MNIST's


def facts(model: str) -> Facts:
    """Run a model on small images; if it does not take them, on the smallest that torchvision names."""
    named = torchvision.models.get_model_weights(model).DEFAULT.meta["min_size"][0]
    size = SMALLEST if measured(model, 3, SMALLEST) else named
    features, parameters, flops = measured(model, 3, size)
    _, more_parameters, more_flops = measured(model, 4, size)
    fixed = not measured(model, 3, size + 32)
    return Facts(size, features, parameters, flops, more_parameters - parameters, more_flops - flops, fixed)


def measured(model: str, channels: int, size: int) -> tuple[int, ...]:
    """Features, parameters and operations on images of a size; nothing if the model does not take them."""
    counter = FlopCounterMode(display=False)
    with torch.device("cpu" if model.startswith("regnet") else "meta"):  # regnet computes its widths with tensors
        network = headless(model, channels).to("meta")
    images = torch.empty(2, channels, size, size, device="meta")
    try:
        network.train()(images)
        # With gradients, because the fused attention that ViT has without them is not counted.
        with counter:
            features = network.eval()(images)
    except (RuntimeError, AssertionError):
        return ()
    parameters = sum(p.numel() for p in network.parameters())
    return features.shape[1], parameters, counter.get_total_flops() // 2


def family(model: str) -> str:
    """The module of torchvision that a model comes from."""
    return str(torchvision.models.get_model_builder(model).__module__.rpartition(".")[2])


def main() -> None:
    """Replace the table."""
    with backbones.TABLE.open("w", encoding="utf-8", newline="") as file:
        file.write(f"torchvision {torchvision.__version__.partition('+')[0]}\n")
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["model", "family", *Facts._fields])
        for model in torchvision.models.list_models(module=torchvision.models):
            table.writerow([model, family(model), *map(int, facts(model))])


if __name__ == "__main__":
    main()

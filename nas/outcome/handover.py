"""best/: what leaves the tool. The test images are opened here, once, for the winner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nas import plugins
from nas.architecture.architecture import Architecture
from nas.architecture.known import lecture_parameters
from nas.architecture.layers import show
from nas.errors import ArchitectureError, NasError, StorageError
from nas.files import write_whole
from nas.records.observer import Outcome, deviation, mean

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.data.source import Source
    from nas.training.network import Network


def write_best(best: Path, architecture: Architecture, weights: Path, data: Dataset) -> Network:
    """Write architecture.json and weights.safetensors, and load the network from them."""
    try:
        best.mkdir(parents=True, exist_ok=True)
        trained = weights.read_bytes()
    except OSError as error:
        raise StorageError.of(best, error) from None
    about = {"input_shape": list(data.input_shape), "classes": list(data.classes)}
    text = json.dumps({**architecture.to_dict(), **about}, indent=2, ensure_ascii=False)
    write_whole(best / "architecture.json", text + "\n")
    write_whole(best / "weights.safetensors", trained)
    return load_network(best)


def load_network(best: Path) -> Network:
    """The trained network in a best/ folder, in evaluation mode; it takes raw images (N, C, H, W), 0 to 255.

    Raises:
        NasError: a file is missing or damaged, or the weights are not those of the architecture.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from nas.training.network import Network

    try:
        about = json.loads((best / "architecture.json").read_text(encoding="utf-8"))
        architecture = Architecture.from_dict(about)
        shape, classes = tuple(int(size) for size in about["input_shape"]), len(about["classes"])
        zeros = [0.0] * shape[0]
        network = Network(architecture, shape, classes, mean=zeros, std=zeros)
        network.load_state_dict(load_file(best / "weights.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, ArchitectureError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NasError(f"{best} does not hold a trained network: {reason}") from None
    return network.eval().to(memory_format=torch.channels_last)


def open_test(source: Source, network: Network) -> tuple[float, float, int]:
    """Accuracy and loss (nats) of the winner on the test images, and how many there are.

    The only place in the project that opens them; called once a search, after everything is decided.
    """
    from nas.training.network import accuracy_and_loss

    test = plugins.guarded(source.load_test, f"the test images of {source.name} cannot be loaded")
    return *accuracy_and_loss(network, test.images, test.labels), len(test)


def write_card(outcome: Outcome) -> None:
    """The model card, README.md in best/: what the network is, how it was found, how good it is."""
    header, limits = outcome.header, outcome.header.limits
    rows = outcome.architecture.table(limits.input_shape, limits.classes)
    retrained = [100 * trial.metrics["validation_accuracy"] for trial in outcome.retrained]
    beside = f" (the lecture: {lecture:,})" if (lecture := lecture_parameters(limits)) else ""
    test = f"**{100 * outcome.test_accuracy:.2f} %**"
    if header.kind == "train":
        scores = [f"| validation accuracy | {retrained[0]:.2f} % |"]
    else:
        searched = 100 * outcome.winner.metrics["validation_accuracy"]
        scores = [
            f"| validation accuracy during the search | {searched:.2f} % |",
            f"| validation accuracy, trained again ({len(retrained)} seeds) "
            f"| {mean(retrained):.2f} % ± {deviation(retrained):.2f} |",
            f"| selection bias (the first less the test accuracy) | {100 * outcome.selection_bias:+.2f} points |",
        ]
    lines = [
        f"# {outcome.architecture.id}",
        "",
        f"A network for {header.dataset['name']} ({show(limits.input_shape)}, {limits.classes} classes), from the "
        f"run {header.name} (`{header.kind}`).",
        header.note,
        "",
        "| score | value |",
        "|---|---|",
        f"| **test accuracy** ({outcome.test_images:,} images, {outcome.opened_words}) | {test} |",
        f"| test loss | {outcome.test_loss:.4f} nats |",
        *scores,
        f"| parameters | {outcome.parameters:,}{beside} |",
        "",
        "| layer | output | parameters |",
        "|---|---|---|",
        *(f"| {row.layer} | {show(row.shape)} | {row.parameters:,} |" for row in rows),
        "",
        f"Trained for {outcome.retrained[0].job.epochs:g} epochs with the recipe `{header.config.get('recipe')}`; "
        f"data fingerprint {header.dataset['fingerprint']}.",
        "",
        "The network takes raw images, 0 to 255; normalisation is its first step:",
        "",
        "```python",
        "from pathlib import Path",
        "from nas.outcome.handover import load_network",
        "",
        'network = load_network(Path("best"))',
        "logits = network(images)  # (N, C, H, W), uint8 or float",
        "```",
    ]
    write_whole(outcome.weights.parent / "README.md", "\n".join(lines) + "\n")

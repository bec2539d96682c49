"""best/: what leaves the tool. The test images are opened here, once, for the winner."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nas import checks, plugins
from nas.architecture.architecture import Architecture, read_dict
from nas.architecture.known import lecture_parameters
from nas.architecture.layers import Shape, show
from nas.data.source import FRAMINGS
from nas.errors import NasError, StorageError, plain, quoted
from nas.files import write_whole
from nas.records.outcome import Comparison, Outcome
from nas.report.texts import cell, spread
from nas.trial import Trial

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.dataset import Dataset
    from nas.data.source import Source
    from nas.training.network import Network

# Of the images of a trained network from a file.
MAX_CHANNELS = 1_000
MAX_SIDE = 4_096
# What `nas export` writes to best/, unless it is told where to.
EXPORTS = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "safetensors", "python": "python"}
# Bytes of a safetensors header: what a tensor takes (86 to 130, by its name), and what is said about all of them.
ENTRY = 256
METADATA = 2**16


def write_best(
    best: Path, architecture: Architecture, weights: Path, data: Dataset, framing: str = "whole"
) -> Network:
    """Write architecture.json and weights.safetensors, and load the network from them."""
    try:
        best.mkdir(parents=True, exist_ok=True)
        trained = weights.read_bytes()
        _withdraw_exports(best, trained)
    except OSError as error:
        raise StorageError.of(best, error) from None
    about = {"input_shape": list(data.input_shape), "classes": list(data.classes), "framing": framing}
    text = json.dumps({**architecture.to_dict(), **about}, indent=2, ensure_ascii=False)
    write_whole(best / "architecture.json", text + "\n")
    write_whole(best / "weights.safetensors", trained)
    return load_network(best)


def _withdraw_exports(best: Path, trained: bytes) -> None:
    """Remove what was exported of another network, which was the winner before."""
    known = best / "weights.safetensors"
    if known.is_file() and known.read_bytes() == trained:
        return
    for name in EXPORTS.values():
        place = best / name
        if place.is_symlink():  # not ours, whatever it leads to
            continue
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        elif place.is_file():
            place.unlink()


def load_network(best: Path) -> Network:
    """The trained network in a best/ folder, in evaluation mode; it takes raw images (N, C, H, W), 0 to 255.

    The folder may be a stranger's: everything is compared with the architecture before the network is allocated.

    Raises:
        NasError: a file is missing or damaged, or the weights are not those of the architecture.
    """
    try:
        architecture, shape, classes = described(best / "architecture.json")
        return restored(architecture, shape, len(classes), best / "weights.safetensors")
    except (ValueError, NasError) as error:
        raise NasError(f"{best} does not hold a trained network: {error}") from None


def restored(architecture: Architecture, shape: Shape, classes: int, path: Path) -> Network:
    """The trained network of an architecture whose weights are in a file, in evaluation mode.

    Raises:
        ValueError: the file is damaged, or another network's, or holds numbers that are not finite.
    """
    import torch

    from nas.training.network import Network

    made = partial(Network, architecture, shape, classes, mean=[0.0] * shape[0], std=[0.0] * shape[0])
    with weightless():
        expected = made().state_dict()
    weights = read_weights(path, expected)
    network = made()
    _check_positions(network, weights)
    state = network.state_dict()  # it knows the versions of its parts, and mnasnet wants to
    state.update(weights)
    network.load_state_dict(state)
    return network.eval().to(memory_format=torch.channels_last)


@contextmanager
def weightless() -> Iterator[None]:
    """What is built inside has parameters of any shape without memory.

    Not on the device "meta" altogether: swin and regnet compute with small tensors while they are built.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Meta(TorchFunctionMode):
        def __torch_function__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = dict(kwargs or {})
            if function is torch.empty:  # as every layer makes its parameters, before it draws them
                kwargs["device"] = "meta"
            return function(*args, **kwargs)

    with Meta():
        yield


def described(path: Path) -> tuple[Architecture, Shape, tuple[str, ...]]:
    """What best/architecture.json says: the architecture, the shape of its images, and the names of the classes.

    Raises:
        ValueError: something is missing or out of range.
        ArchitectureError: the network cannot be, or does not fit its images.
    """
    about = read_dict(path)
    architecture = Architecture.from_dict(about)
    sizes, names = checks.record(about, "trained network", "input_shape", "classes")
    right = isinstance(sizes, list) and len(sizes) == 3 and all(type(size) is int and size > 0 for size in sizes)
    if not right or sizes[0] > MAX_CHANNELS or max(sizes[1:]) > MAX_SIDE:
        raise ValueError(
            f"input_shape is {quoted(sizes)}, and should be channels (at most {MAX_CHANNELS:,}), height and width "
            f"(at most {MAX_SIDE:,})"
        )
    classes = tuple(checks.text(name, "a class") for name in checks.several(names, "classes"))
    if not classes:
        raise ValueError("there are no classes")
    architecture.table(tuple(sizes), len(classes))
    return architecture, tuple(sizes), classes


def framing_of(best: Path) -> str:
    """How the images were framed that the network in a best/ folder was trained on (see `Source.framing`).

    Raises:
        NasError: architecture.json says something else, or cannot be read.
    """
    framing = read_dict(best / "architecture.json").get("framing", "whole")  # older folders do not say it
    if framing not in FRAMINGS:
        raise NasError(
            f"{best} does not hold a trained network: framing is {quoted(framing)}, and should be one of "
            f"{', '.join(FRAMINGS)}"
        )
    return str(framing)


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in a safetensors file, if they are those that are expected, on whatever device these are.

    Raises:
        ValueError: the file is damaged, or another network's, or holds numbers that are not finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        _check_size(path, expected)
        with safe_open(path, framework="pt") as file:
            _check_header(file, expected)
            weights = {name: file.get_tensor(name) for name in expected}
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        reason = " ".join(plain(str(error)).split())[:150]  # it may hold the name of a tensor
        raise ValueError(f"{path.name} is damaged, or no safetensors file: {reason}") from None
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{path.name}: {name} holds NaN or infinity")
    return weights


def _check_positions(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Compare whole numbers that are positions in tables, and follow from the architecture (swin has such)."""
    for name, known in network.state_dict().items():
        counts = name.endswith("num_batches_tracked")
        if not (known.is_floating_point() or counts or known.equal(weights[name])):
            raise ValueError(f"the weights have other positions in {name} than the architecture")


def _check_size(path: Path, expected: Mapping[str, Tensor]) -> None:
    """Refuse a file that is larger than it should be; safetensors itself would parse a header of 100 MB."""
    if not path.is_file():
        path.stat()  # raises where there is nothing
        raise ValueError(f"{path.name} is not a file")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    size, room = path.stat().st_size, METADATA + ENTRY * len(expected)
    if size < 8 or header > room:
        raise ValueError(f"{path.name} is damaged, or no safetensors file: its header would have {header:,} bytes")
    content = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    if size > 8 + header + content:
        raise ValueError(
            f"{path.name} has {size - 8 - header:,} bytes of numbers, and the architecture needs {content:,}"
        )


def _check_header(file: Any, expected: Mapping[str, Tensor]) -> None:
    """Compare names, kinds and shapes; the numbers are not read. 1 KB may declare 10⁹ of them."""
    names = set(file.keys())
    for name, tensor in expected.items():
        if name not in names:
            raise ValueError(f"the weights lack {name}")
        part = file.get_slice(name)
        found = f"{part.get_dtype()} {part.get_shape()}"
        wanted = f"{'F32' if tensor.is_floating_point() else 'I64'} {list(tensor.shape)}"
        if found != wanted:
            raise ValueError(f"the weights have {name} as {found[:100]}, and it should be {wanted}")
    if more := sorted(names - expected.keys()):
        raise ValueError(f"the weights have {quoted(more[0])}, which the architecture does not have")


class Tested(NamedTuple):
    """What the test images say of one network."""

    right: Tensor  # (N,) bool: which of them it classifies right
    loss: float  # nats

    @property
    def accuracy(self) -> float:
        """The fraction that it classifies right."""
        return int(self.right.sum()) / len(self.right)

    def beside(self, other: Tested, what: str, trial: Trial) -> Comparison:
        """What the same images say of the other one, whose training was ``trial``."""
        counts = (int((one.right & ~two.right).sum()) for one, two in ((self, other), (other, self)))
        return Comparison(what, trial, other.accuracy, *counts)


def open_test(source: Source, networks: Sequence[Network]) -> list[Tested]:
    """What the test images say of the winner, and of those that it is compared with.

    The only place in the project that opens them; called once a search, after everything is decided.
    """
    from nas.training.network import right_and_loss

    test = plugins.guarded(source.load_test, f"the test images of {source.name} cannot be loaded")
    return [Tested(*right_and_loss(network, test.images, test.labels)) for network in networks]


def test_images(source: Source) -> Tensor:
    """The test images (N, C, H, W) uint8, without their labels, to compare an exported model on.

    This does not break the seal: no label is looked at, so nothing is learned of how good a network is; it happens
    after everything is decided; and nothing of it goes back into a search.

    Raises:
        DataError: they cannot be had on this machine.
    """
    return plugins.guarded(source.load_test, f"the test images of {source.name} cannot be loaded").images


def write_card(outcome: Outcome) -> None:
    """The model card, README.md in best/: what the network is, how it was found, how good it is."""
    header, limits = outcome.header, outcome.header.limits
    rows = outcome.architecture.table(limits.input_shape, limits.classes)
    retrained = [100 * trial.metrics["validation_accuracy"] for trial in outcome.retrained]
    beside = f" (the lecture: {lecture:,})" if (lecture := lecture_parameters(limits)) else ""
    test = f"**{100 * outcome.test_accuracy:.2f} %**"
    low, high = outcome.test_interval
    if header.kind == "train":
        scores = [f"| validation accuracy | {spread(outcome)} |"]
    else:
        searched = 100 * outcome.winner.metrics["validation_accuracy"]
        scores = [
            f"| validation accuracy during the search | {searched:.2f} % |",
            f"| validation accuracy, trained again ({len(retrained)} seed{'s' * (len(retrained) > 1)}) "
            f"| {spread(outcome)} |",
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
        f"| its 95 % interval (Wilson) | {100 * low:.2f} to {100 * high:.2f} % |",
        f"| test loss | {outcome.test_loss:.4f} nats |",
        *scores,
        f"| parameters | {outcome.parameters:,}{beside} |",
        "",
        *(
            f"On the same images {one.name}, trained for as long, has {100 * one.accuracy:.2f} %: {one.verdict}.\n"
            for one in outcome.compared
        ),
        "| layer | output | parameters |",
        "|---|---|---|",
        *(f"| {cell(row.layer)} | {show(row.shape)} | {row.parameters:,} |" for row in rows),
        "",
        f"Trained for {outcome.retrained[0].job.epochs:g} epochs with the recipe `{header.config.get('recipe')}`; "
        f"data fingerprint {header.dataset['fingerprint']}.",
        "",
        "The network takes raw images, 0 to 255; normalisation is its first step:",
        "",
        "```python",
        "from pathlib import Path",
        "from nas.winner.best import load_network",
        "",
        'network = load_network(Path("best"))',
        "logits = network(images)  # (N, C, H, W), uint8 or float",
        "```",
    ]
    write_whole(outcome.weights.parent / "README.md", "\n".join(lines) + "\n")

"""best/: the folder of a trained network, architecture.json and weights.safetensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from nas import checks
from nas.architecture.architecture import Architecture, Row, read_dict
from nas.architecture.layers import Shape
from nas.data.plugin import FRAMINGS, fit_of
from nas.errors import NasError, StorageError, UsageError, quoted
from nas.experiment import Experiment
from nas.files import write_whole
from nas.plugins import offer
from nas.records.outcome import FRONT
from nas.winner.export import PLACES
from nas.winner.weights import restored

if TYPE_CHECKING:
    from nas.data.dataset import Dataset
    from nas.data.resize import Fit
    from nas.data.sequences.reading import Reading
    from nas.training.network import Network

DESCRIPTION = "architecture.json"
BEST = "best"  # in the folder of a search, the folder of its winner
# Limits of a network from a file; ImageNet has 1,000 classes, its full version 21,841.
MAX_CHANNELS = 1_000
MAX_SIDE = 16_384  # pixels, or steps of a sequence: a second at 16 kHz


class Description(NamedTuple):
    """The content of a best/architecture.json."""

    architecture: Architecture
    input_shape: Shape
    classes: tuple[str, ...]
    framing: str = "stretch"  # of the images that the network was trained on: see `DatasetPlugin.framing`
    is_padded: bool = False  # whether series may be shorter than others: see `nas.training.network.Network`
    reading: Reading | None = None  # how a file becomes an input, where it is no image

    @property
    def fit(self) -> Fit:
        """How images of another aspect ratio are resized."""
        return fit_of(self.framing)

    def rows(self) -> list[Row]:
        """The table of the architecture."""
        return self.architecture.table(self.input_shape, len(self.classes))


def write_best(
    best: Path,
    architecture: Architecture,
    weights: Path,
    data: Dataset,
    framing: str = "stretch",
    reading: Mapping[str, Any] = MappingProxyType({}),
) -> Network:
    """Write architecture.json and weights.safetensors, and load the network from them.

    The exports of an earlier winner with other weights are removed.
    """
    try:
        best.mkdir(parents=True, exist_ok=True)
        content = weights.read_bytes()
        old = best / "weights.safetensors"
        if not old.is_file() or old.read_bytes() != content:
            for path in (best / name for name in PLACES.values()):
                if path.is_symlink():  # not made by an export
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError.of(best, error) from None
    data_keys = {"input_shape": list(data.input_shape), "classes": list(data.classes), "framing": framing}
    data_keys |= {"is_padded": True} if data.is_padded else {}
    data_keys |= {"reading": dict(reading)} if reading else {}
    text = json.dumps({**architecture.to_dict(), **data_keys}, indent=2, ensure_ascii=False)
    write_whole(best / DESCRIPTION, text + "\n")
    write_whole(best / "weights.safetensors", content)
    return load_network(best)


def load_network(best: Path) -> Network:
    """The trained network in a best/ folder, in evaluation mode; it takes raw inputs, of images 0 to 255.

    The folder may come from a stranger: the files are compared with the architecture before memory is allocated.

    Raises:
        NasError: a file is missing or damaged, or the weights are not those of the architecture.
    """
    return read_best(best)[1]


def read_best(best: Path) -> tuple[Description, Network]:
    """The description and the trained network in a best/ folder: see `load_network`."""
    try:
        description = _description(best / DESCRIPTION)
        architecture, shape, classes, _, is_padded, _ = description
        weights = best / "weights.safetensors"
        return description, restored(architecture, shape, len(classes), weights, is_padded=is_padded)
    except (ValueError, NasError) as error:
        raise NasError(f"{best} does not hold a trained network: {error}") from None


def description_of(best: Path) -> Description:
    """The description of the trained network in a best/ folder, whose weights are not read.

    Raises:
        NasError: it is missing or damaged.
    """
    try:
        return _description(best / DESCRIPTION)
    except (ValueError, NasError) as error:
        raise NasError(f"{best} does not hold a trained network: {error}") from None


def folder_of(search: Path, network: str | None) -> Path:
    """The folder of a trained network of a search: of its winner, or of a network of its Pareto front.

    Args:
        search: the folder of the search.
        network: the id, or its first digits; None for the winner.

    Raises:
        UsageError: the search has handed over no such network, or several.
    """
    if network is None:
        return search / BEST
    found = {path.name: path for path in sorted((search / FRONT).glob("*")) if (path / DESCRIPTION).is_file()}
    if network in found:
        return found[network]
    fitting = [name for name in found if network and name.startswith(network)]
    if len(fitting) == 1:
        return found[fitting[0]]
    if fitting:
        raise UsageError(f"{quoted(network)} may be {' or '.join(fitting)}: give more digits")
    kept = ", ".join(found) if found else "only its winner, which is taken without --network"
    raise UsageError(f"{search.name} has handed over no network {quoted(network)}, but {kept}")


def load(folder: str | Path, *, plugins: Sequence[str | Path] = ()) -> Network:
    """The trained network of a search or a training, in evaluation mode: see `load_network`.

    Args:
        folder: the folder of the search or the training, or ``best`` or ``front/ID`` in it.
        plugins: folders of plugins: their layers may be in the network, and their code may run.

    Raises:
        NasError: there is no trained network, or one of its files is damaged.
    """
    offer(Experiment.of(plugins=plugins).plugins)
    best = Path(folder) / BEST
    return load_network(best if best.is_dir() else Path(folder))


def _description(path: Path) -> Description:
    content = read_dict(path)
    architecture = Architecture.from_dict(content)
    sizes, names, framing = checks.record(content, "trained network", "input_shape", "classes", "framing")
    valid = isinstance(sizes, list) and 1 <= len(sizes) <= 3 and all(type(n) is int and n > 0 for n in sizes)
    if not valid or sizes[0] > MAX_CHANNELS or max(sizes) > MAX_SIDE:
        allowed = f"channels (at most {MAX_CHANNELS:,}) and up to two sizes (at most {MAX_SIDE:,})"
        raise ValueError(f"input_shape is {quoted(sizes)}, and should be {allowed}")
    classes = tuple(checks.text(name, "a class") for name in checks.several(names, "classes"))
    if not classes:
        raise ValueError("there are no classes")
    if framing not in FRAMINGS:
        raise ValueError(f"framing is {quoted(framing)}, and should be one of {', '.join(FRAMINGS)}")
    is_padded = content.get("is_padded", False)
    if type(is_padded) is not bool:
        raise ValueError(f"is_padded is {quoted(is_padded)}, and should be true or false")
    from nas.data.sequences.reading import reading_of  # which imports the readers of all files

    reading = reading_of(content.get("reading", {}), tuple(sizes), classes)
    description = Description(architecture, tuple(sizes), classes, framing, is_padded, reading)
    description.rows()  # raises an error if the network is impossible, or does not fit its images
    return description

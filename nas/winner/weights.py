"""Weights from a safetensors file, compared with the architecture before memory is allocated for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.architecture.architecture import Architecture
from nas.architecture.layers import Shape
from nas.errors import plain, quoted

if TYPE_CHECKING:
    from torch import Tensor

    from nas.training.network import Network

# The most bytes of a safetensors header: for each tensor (86 to 130, by its name), and for the metadata.
ENTRY, METADATA = 256, 2**16


def restored(
    architecture: Architecture, shape: Shape, classes: int, path: Path, *, is_padded: bool = False
) -> Network:
    """The trained network of an architecture with the weights in a file, in evaluation mode.

    Raises:
        ValueError: the file is damaged, belongs to another network, or holds numbers that are not finite.
    """
    import torch

    from nas.training.network import Network

    moments = dict.fromkeys(("mean", "std"), [0.0] * shape[0] if len(shape) > 1 else [])
    new = partial(Network, architecture, shape, classes, **moments, is_padded=is_padded)
    with weightless():
        expected = new().state_dict()
    weights = read_weights(path, expected)
    network = new()
    state = network.state_dict()  # it holds the versions of its parts, which mnasnet needs
    for name, known in state.items():  # the whole numbers in a swin network follow from its architecture
        is_counter = name.endswith("num_batches_tracked")
        if not (known.is_floating_point() or is_counter or known.equal(weights[name])):
            raise ValueError(f"the weights have other positions in {name} than the architecture")
    state.update(weights)
    network.load_state_dict(state)
    return network.eval().to(memory_format=torch.channels_last)


@contextmanager
def weightless() -> Iterator[None]:
    """Build the modules of this block with parameters that take no memory.

    Other tensors stay off the device "meta": swin and regnet compute with small tensors while they are built.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Meta(TorchFunctionMode):
        def __torch_function__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            meta = (
                {"device": "meta"} if function is torch.empty else {}
            )  # every layer allocates parameters with it
            return function(*args, **{**(kwargs or {}), **meta})

    with Meta():
        yield


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in a safetensors file, if they have the expected names, types and shapes: see `restored`."""
    from safetensors import SafetensorError, safe_open

    try:
        _check_size(path, expected)
        with safe_open(path, framework="pt") as file:
            _check_header(file, expected)
            weights = {name: file.get_tensor(name) for name in expected}
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        reason = " ".join(plain(str(error)).split())[:150]  # it may contain the name of a tensor
        raise ValueError(f"{path.name} is damaged, or not a safetensors file: {reason}") from None
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{path.name}: {name} holds NaN or infinity")
    return weights


def _check_size(path: Path, expected: Mapping[str, Tensor]) -> None:
    """Refuse a file that is too large; safetensors itself would parse a header of 100 MB."""
    size = path.stat().st_size
    if not path.is_file():  # opening a pipe would wait for its writer
        raise ValueError(f"{path.name} is not a file")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if size < 8 or header > METADATA + ENTRY * len(expected):
        reason = f"its header would have {header:,} bytes"
        raise ValueError(f"{path.name} is damaged, or not a safetensors file: {reason}")
    numbers = size - 8 - header
    needed = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    if numbers > needed:
        raise ValueError(f"{path.name} has {numbers:,} bytes of numbers, and the architecture needs {needed:,}")


def _check_header(file: Any, expected: Mapping[str, Tensor]) -> None:
    """Compare names, types and shapes, before any number is read: 1 KB may declare 10⁹ of them."""
    names = set(file.keys())
    for name, tensor in expected.items():
        if name not in names:
            raise ValueError(f"the weights lack {name}")
        part = file.get_slice(name)
        actual = f"{part.get_dtype()} {part.get_shape()}"
        wanted = f"{'F32' if tensor.is_floating_point() else 'I64'} {list(tensor.shape)}"
        if actual != wanted:
            raise ValueError(f"the weights have {name} as {actual[:100]}, and it should be {wanted}")
    if more := sorted(names - expected.keys()):
        raise ValueError(f"the weights have {quoted(more[0])}, which the architecture does not have")

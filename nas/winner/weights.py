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

# Bytes of a safetensors header: for each tensor (86 to 130, by its name), and for the rest.
ENTRY = 256
METADATA = 2**16


def restored(architecture: Architecture, shape: Shape, classes: int, path: Path) -> Network:
    """The trained network of an architecture with the weights in a file, in evaluation mode.

    Raises:
        ValueError: the file is damaged, belongs to another network, or holds numbers that are not finite.
    """
    import torch

    from nas.training.network import Network

    new = partial(Network, architecture, shape, classes, mean=[0.0] * shape[0], std=[0.0] * shape[0])
    with weightless():
        expected = new().state_dict()
    weights = read_weights(path, expected)
    network = new()
    _check_positions(network, weights)
    state = network.state_dict()  # it holds the versions of its parts, which mnasnet needs
    state.update(weights)
    network.load_state_dict(state)
    return network.eval().to(memory_format=torch.channels_last)


@contextmanager
def weightless() -> Iterator[None]:
    """Let modules that are built in this block have parameters of any shape without memory.

    Other tensors stay off the device "meta": swin and regnet compute with small tensors while they are built.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Meta(TorchFunctionMode):
        def __torch_function__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = dict(kwargs or {})
            if function is torch.empty:  # every layer makes its parameters with it before it draws them
                kwargs["device"] = "meta"
            return function(*args, **kwargs)

    with Meta():
        yield


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in a safetensors file, if they have the expected names, kinds and shapes.

    Raises:
        ValueError: the file is damaged, belongs to another network, or holds numbers that are not finite.
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
        reason = " ".join(plain(str(error)).split())[:150]  # it may contain the name of a tensor
        raise ValueError(f"{path.name} is damaged, or not a safetensors file: {reason}") from None
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{path.name}: {name} holds NaN or infinity")
    return weights


def _check_positions(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Compare the positions in tables that follow from the architecture: the whole numbers in a swin network."""
    for name, known in network.state_dict().items():
        counts = name.endswith("num_batches_tracked")
        if not (known.is_floating_point() or counts or known.equal(weights[name])):
            raise ValueError(f"the weights have other positions in {name} than the architecture")


def _check_size(path: Path, expected: Mapping[str, Tensor]) -> None:
    """Refuse a file that is too large; safetensors itself would parse a header of 100 MB."""
    if not path.is_file():
        path.stat()  # raises an error where no file exists
        raise ValueError(f"{path.name} is not a file")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    size, room = path.stat().st_size, METADATA + ENTRY * len(expected)
    if size < 8 or header > room:
        raise ValueError(
            f"{path.name} is damaged, or not a safetensors file: its header would have {header:,} bytes"
        )
    content = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    if size > 8 + header + content:
        raise ValueError(
            f"{path.name} has {size - 8 - header:,} bytes of numbers, and the architecture needs {content:,}"
        )


def _check_header(file: Any, expected: Mapping[str, Tensor]) -> None:
    """Compare names, kinds and shapes, before any number is read: 1 KB may declare 10⁹ of them."""
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

"""The contract of layers."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nas import plugins
from nas.architecture.architecture import Architecture
from nas.architecture.layers import Flatten, Layer, Merge, Shape, show
from nas.errors import ArchitectureError, NasError
from nas.testing.contract import Contract, doing, global_random, require

if TYPE_CHECKING:
    from torch import Tensor, nn

SHAPES: tuple[Shape, ...] = ((3, 12, 10), (4, 8, 8), (3, 20), (8, 32), (16,), (7,))  # images, sequences, vectors
CLASSES = 3


class LayerContract(Contract):
    """What a search relies on in a layer. It is compared with its module, on each of six inputs that fits."""

    def make(self) -> Layer:
        """The layer, with the options as its settings."""
        with doing("making it"):
            values = plugins.check_options(self.plugin, self.options, ("inputs",))
            layer: Layer = self.plugin(**values)
        return layer

    def test_shape(self) -> None:
        """Makes the shape that it says, for any batch."""
        for shapes in self._fitting():
            layer = self.make()
            for count in (1, 3):
                own = (count, *layer.output_shape(*shapes))
                made = tuple(self._module(shapes).eval()(*_inputs(shapes, count)).shape)
                require(own == made, f"on {_listed(shapes)} it says {own}, and its module makes {made}: {layer}")

    def test_parameters(self) -> None:
        """Learns as many numbers as it says."""
        for shapes in self._fitting():
            own = self.make().parameters(*shapes)
            made = sum(parameter.numel() for parameter in self._module(shapes).parameters())
            require(own == made, f"on {_listed(shapes)} it says {own:,} parameters, and its module has {made:,}")

    def test_flops(self) -> None:
        """Does as many operations as it says, as torch counts them."""
        from torch.utils.flop_counter import FlopCounterMode

        for shapes in self._fitting():
            own, module = self.make().flops(*shapes), self._module(shapes).eval()
            with FlopCounterMode(display=False) as counter:
                module(*_inputs(shapes, 1))
            counted = counter.get_total_flops()
            if own != counted:
                # On a CPU, torch does not look into some operators (LSTM); on the device "meta" it does.
                base = Merge if issubclass(self.plugin, Merge) else Layer
                with suppress(Exception):
                    counted = base.flops(self.make(), *shapes)
            require(own == counted, f"on {_listed(shapes)} it says {own:,} operations, torch counts {counted:,}")

    def test_learns(self) -> None:
        """Passes a gradient to each of its parameters, and leaves its input as it is."""
        import torch

        for shapes in self._fitting():
            module = self._module(shapes).train()
            inputs = [tensor.requires_grad_() for tensor in _inputs(shapes, 4)]
            before = [tensor.detach().clone() for tensor in inputs]
            module(*inputs).square().sum().backward()
            lost = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
            require(not lost, f"the parameter {(lost or [''])[0]} gets no gradient")
            require(all(map(torch.equal, inputs, before)), "it changes its input in place")

    def test_seed(self) -> None:
        """Draws its weights from PyTorch's random numbers alone."""
        import torch

        weights = []
        for _ in range(2):
            with global_random(1) as changed:
                weights.append(self._module(self._fitting()[0]).state_dict())
                others = [name for name in changed() if name != "torch"]
                require(not others, f"module draws from, or seeds, {' and '.join(others)}")
        same = all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        require(same, "with the same seed of PyTorch, its module has other weights")

    def test_json(self) -> None:
        """Is written as JSON, found again by its name, and read back equal."""
        layer, named = self.make(), plugins.layer(self.plugin.__name__)
        require(named is self.plugin, f"the name {self.plugin.__name__} stands for another class: {named}")
        architecture = self._network(self._fitting()[0], layer)
        with doing("reading it from JSON"):
            back = Architecture.from_json(architecture.to_json())
        require(back == architecture, f"{architecture.to_json()} is read as {back.to_json()}")
        require(back.id == architecture.id, "it has another id after it was written and read")

    def test_refuses(self) -> None:
        """Refuses an input that does not fit with an ArchitectureError, and no other exception."""
        for shapes in self._shapes():
            with doing(f"output_shape on {_listed(shapes)}"), suppress(ArchitectureError):
                self.make().output_shape(*shapes)

    def test_export(self) -> None:
        """Is exported in a network by torch.export, and as Python source (or the error says why not)."""
        import torch

        from nas.training.network import Network
        from nas.winner.best import Description
        from nas.winner.export.source_code import renamed, source_code

        shapes = self._fitting()[0]
        shape, architecture = shapes[0], self._network(shapes, self.make())
        moments: dict[str, Any] = {"mean": [0.0] * shape[0], "std": [1.0] * shape[0]}
        network = Network(architecture, shape, CLASSES, **moments).eval()
        [x] = _inputs(shapes[:1], 2)
        x = x.round()  # an exported network resizes images, whose values are whole numbers
        with doing("torch.export"), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of torch about its own recurrent layers; `nas export` hides them, too
            exported = torch.export.export(network, (x,)).module()(x)
        require(
            torch.allclose(exported, network(x), atol=1e-5), "exported by torch.export, it computes other values"
        )
        description = Description(architecture, shape, tuple("abc"))
        try:
            code = source_code(description, "contract")
        except NasError:  # the reason, in one line
            return
        with doing("running its source"):
            names = {"__name__": "network", "__file__": "network.py"}
            exec(compile(code, "network.py", "exec"), names)  # noqa: S102  the plugin's own source
            copy = names["Network"]()  # type: ignore[operator]
            copy.load_state_dict(renamed(description, network.state_dict()))
            copied = copy.eval().layers(x) if len(shape) == 3 and architecture.is_chain else copy.eval()(x)
        require(torch.allclose(copied, network(x), atol=1e-4), "written as Python, it computes other values")

    def _network(self, shapes: tuple[Shape, ...], layer: Layer) -> Architecture:
        """A network with the layer, each of whose inputs is the network's input."""
        if len(shapes) > 1:
            layer = replace(layer, inputs=(0,) * len(shapes))
        return Architecture((layer, Flatten()))

    def _shapes(self) -> list[tuple[Shape, ...]]:
        """The inputs, each with one shape, or two for a layer that merges."""
        merges = issubclass(self.plugin, Merge)
        return [(shape, shape) if merges else (shape,) for shape in SHAPES]

    def _fitting(self) -> list[tuple[Shape, ...]]:
        """The inputs that fit the layer, of which there is at least one."""
        fitting = []
        for shapes in self._shapes():
            with suppress(ArchitectureError):
                self.make().output_shape(*shapes)
                fitting.append(shapes)
        require(bool(fitting), f"it fits none of {', '.join(map(_listed, self._shapes()))}")
        return fitting

    def _module(self, shapes: tuple[Shape, ...]) -> nn.Module:
        with doing(f"module on {_listed(shapes)}"):
            return self.make().module(*shapes)


def _inputs(shapes: tuple[Shape, ...], count: int) -> list[Tensor]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, *shape, generator=generator) for shape in shapes]


def _listed(shapes: tuple[Shape, ...]) -> str:
    return " and ".join(map(show, shapes))

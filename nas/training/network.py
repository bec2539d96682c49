"""An architecture becomes a PyTorch module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.architecture.architecture import Architecture
from nas.architecture.layers import Layer, Shape, TakeLast
from nas.architecture.modules import Backbone
from nas.data.kinds import kind_of
from nas.data.resize import Fit, pixel_scales, pixel_weights
from nas.training import modules

CLASSIFIED = 2**23  # numbers in a batch that is classified: 500 images of 3×64×64, 42 of 3×256×256


WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Step(NamedTuple):
    """A layer in the forward pass of a network."""

    parts: list[str]  # the names of its modules, which are applied in this order
    position: int  # of the layer, from 1
    inputs: tuple[int, ...]  # positions of layers; 0 is the input of the network
    last_used: list[int]  # positions whose outputs no later layer needs
    layer: Layer
    shape: Shape  # of its first input


class Network(nn.Module):
    """The module of an architecture. It takes raw data, which it normalises first; tokens stay as they are.

    Series that are shorter than others are followed by NaN. What a network computes for such a series does not
    depend on the steps after its end, nor on their number: they are zero before every layer, and the layers whose
    results depend on more than one step, and not by a sum, are told where a series ends (``is_masked``).

    Args:
        architecture: the architecture to build.
        input_shape: (channels, *sizes) of an input, for example (1, 28, 28).
        classes: the number of classes.
        mean: the mean of each channel of the training data (of images: 0 to 255; of tokens: empty).
        std: the standard deviation of each channel.
        is_padded: whether series may be shorter than others.

    Raises:
        ArchitectureError: a layer does not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: Architecture,
        input_shape: Shape,
        classes: int,
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (255.0,),
        is_padded: bool = False,
    ) -> None:
        super().__init__()
        self.is_built_in = architecture.is_built_in
        self.kind, self.is_padded = kind_of(input_shape), is_padded
        self.size = tuple(input_shape[1:])  # of an image: height, width; of a series: its steps
        each_channel = (-1, *[1] * len(self.size))
        self.register_buffer("mean", torch.tensor([float(value) for value in mean]).view(each_channel))
        divisors = [max(_least(self.kind, m), s) for m, s in zip(mean, std, strict=True)]
        self.register_buffer("std", torch.tensor(divisors).view(each_channel))
        rows = architecture.table(input_shape, classes)
        shapes = [input_shape, *(row.shape for row in rows)]
        self._steps: list[Step] = []
        built: list[dict[str, nn.Module]] = [{}]
        for position, row in enumerate(rows, 1):
            module = row.layer.module(*(shapes[i] for i in row.inputs))
            # _modules, because named_children leaves out a module that is there twice.
            own = module._modules if type(module) is nn.Sequential else {type(row.layer).__name__: module}
            parts = {f"{position}_{name}": part for name, part in own.items() if part is not None}
            if row.layer.is_built_in:
                parts = {name: modules.tuned(part) for name, part in parts.items()}
            built.append(parts)
        inputs = [(), *(row.inputs for row in rows)]
        modules.pool_first(built, inputs)
        last = {i: position for position, used in enumerate(inputs) for i in used}
        self.layers = nn.ModuleDict()
        for position in range(1, len(built)):
            self.layers.update(built[position])
            last_used = [i for i in set(inputs[position]) if last[i] == position]
            layer, shape = rows[position - 1].layer, shapes[inputs[position][0]]
            self._steps.append(Step(list(built[position]), position, inputs[position], last_used, layer, shape))
        self._taken = _taken(self._steps) if self.kind == "tokens" else 0  # the position of `TakeLast`
        convolutions = [part for part in self.modules() if isinstance(part, nn.Conv2d)]
        self.has_depthwise = any(part.groups == part.in_channels > 1 for part in convolutions)
        self.dropouts = [part for part in self.modules() if isinstance(part, modules.Dropout)]
        self.backbones = [part for part in self.layers.values() if isinstance(part, Backbone)]
        self.fine_tuned = [  # those with pretrained weights, which learn more slowly
            part for part, layer in zip(self.backbones, architecture.backbones, strict=True) if layer.weights
        ]
        self.to(memory_format=torch.channels_last)  # 1.2–1.5× on CPUs

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, classes) of raw inputs (N, channels, *sizes); images are uint8 or float, 0 to 255."""
        if self.is_padded:
            return self._masked(inputs)
        return self._run(self._scaled(inputs), self._steps)

    def every_step(self, tokens: Tensor) -> Tensor:
        """Logits (N · T, classes) of tokens (N, T): what follows each of them, by those up to it.

        Only if ``answers_every_step``: what a training learns from a window is then as much as from T of them.
        """
        x = self._run(tokens, self._steps[: self._taken - 1])
        return self._run(x.transpose(1, 2).flatten(0, 1), self._steps[self._taken :])

    @property
    def answers_every_step(self) -> bool:
        """Whether the network answers for tokens, and takes the last step of layers that do not look ahead."""
        return self._taken > 0

    def _run(self, x: Tensor, steps: Sequence[Step]) -> Tensor:
        """The output of the last of these steps, of which the first gets ``x``."""
        outputs = {steps[0].inputs[0] if steps else 0: x}
        for step in steps:
            tensors = [outputs[i] for i in step.inputs]
            for i in step.last_used:
                del outputs[i]
            for name in step.parts:
                tensors = [self.layers[name](*tensors)]
            [x] = tensors
            outputs[step.position] = x
        return x

    def _scaled(self, inputs: Tensor) -> Tensor:
        if not self.mean.numel():  # tokens
            return inputs
        x = (inputs.to(self.mean.dtype) - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    def _masked(self, series: Tensor) -> Tensor:
        """The forward pass of series (N, C, T) that end before the last step, from where on they are NaN."""
        missing = self.size[0] - series.shape[2]
        if missing > 0:  # as in a training, so that windows end at the same steps
            series = functional.pad(series, (0, missing), value=math.nan)
        x = self._scaled(series)
        lengths = {0: (~x[:, 0].isnan()).sum(1)}  # (N,), of the output of each layer that is a sequence
        outputs = {0: x.masked_fill(~_before(lengths[0], x.shape[2]), 0.0)}
        for step in self._steps:
            position = step.position
            tensors, length = [outputs[i] for i in step.inputs], lengths.get(step.inputs[0])
            for i in step.inputs[1:]:  # of a merge: the longest
                length = length if length is None else torch.maximum(length, lengths[i])
            for i in step.last_used:
                del outputs[i]
            mask = None if length is None else _before(length, tensors[0].shape[2])
            for name in step.parts:
                part = self.layers[name]
                x = part(*tensors, mask) if getattr(part, "is_masked", False) else part(*tensors)
                tensors = [x]
                if length is None or mask is None:
                    continue
                if x.ndim == 2:
                    length = mask = None
                elif x.shape[2] != mask.shape[2]:
                    length = step.layer.filled(length, step.shape).clamp(1, x.shape[2])
                    mask = _before(length, x.shape[2])
            if length is not None and mask is not None:
                lengths[position], x = length, x.masked_fill(~mask, 0.0)
            outputs[position] = x
        return outputs[len(self._steps)]

    @property
    def hidden(self) -> list[Tensor]:
        """The matrices and kernels of layers that neither see the image, nor are the last one or a backbone.

        A kernel is none if it sees a part of the maps only (depthwise and grouped convolutions).
        """
        skipped = {id(part) for backbone in self.backbones for part in backbone.modules()}
        found: dict[int, Tensor] = {}
        seeing = {0}  # the positions of the image, and of what pooling, flattening and the like make of it
        for position, step in enumerate(self._steps[:-1], 1):
            every = [part for name in step.parts for part in self.layers[name].modules()]
            weighted = [part for part in every if isinstance(part, WEIGHTED) and id(part) not in skipped]
            if not seeing.isdisjoint(step.inputs):
                if not any(isinstance(part, WEIGHTED) for part in every):
                    seeing.add(position)
                continue
            found |= {id(part): part.weight for part in weighted if getattr(part, "groups", 1) == 1}
        return list(found.values())

    def use_keys(self, keys: Tensor | None) -> None:
        """Let ``keys`` (layers,) decide the masks of the dropout layers; with None, PyTorch draws them again."""
        for number, layer in enumerate(self.dropouts):
            layer.keys = None if keys is None else keys[number]


def _least(kind: str, mean: float) -> float:
    """The deviation by which a channel that hardly varies is divided, at least.

    Values of images are 0 to 255. Those of series are anything, in float32, which has seven digits.
    """
    return max(1e-8, 1e-6 * abs(mean)) if kind == "series" else 1.0


def _taken(steps: Sequence[Step]) -> int:
    """The position of the only `TakeLast`, if no layer before it looks ahead; otherwise 0."""
    positions = [step.position for step in steps if isinstance(step.layer, TakeLast)]
    if len(positions) != 1:
        return 0
    [taken] = positions
    before, after = steps[: taken - 1], steps[taken:]
    does_not_look_ahead = all(step.layer.is_causal for step in before)
    sees_the_last = all(min(step.inputs) >= taken for step in after)
    return taken if does_not_look_ahead and sees_the_last else 0


def _before(lengths: Tensor, steps: int) -> Tensor:
    """Whether series of the lengths (N,) have each of so many steps: (N, 1, steps) bool."""
    return (torch.arange(steps, device=lengths.device) < lengths[:, None])[:, None]


class AnySize(nn.Module):
    """An exported model: a trained network that resizes images of any size (but does not change other inputs).

    Args:
        network: the network.
        fit: how images of another aspect ratio are resized, see `nas.data.decoder.Frame`.
    """

    def __init__(self, network: Network, fit: Fit = "stretch") -> None:
        super().__init__()
        self.network = network
        self.fit = fit

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of raw images (N, C, any height, any width), uint8, 0 to 255.

        Images of another size are resized to the same pixels as for training and `nas predict`.
        """
        size = self.network.size
        if len(size) == 2:
            images = resized(images.float(), size, self.fit)
        return self.network(images)  # type: ignore[no-any-return]


def resized(images: Tensor, size: Sequence[int], fit: str) -> Tensor:
    """Images (N, C, H, W) of the values 0 to 255 as (N, C, *size), float32: bilinear, antialiased.

    An image of another aspect ratio is cropped to its centre (fit "crop"), padded with black ("pad") or distorted.
    """
    height, width = (torch.scalar_tensor(n, dtype=torch.int64, device=images.device) for n in images.shape[2:])
    *scales, denominator = pixel_scales(height, width, size[0], size[1], fit)
    for axis in (0, 1):  # the rows, then the columns
        images = images.transpose(2, 3)
        pixels = torch.arange(images.shape[3], device=images.device)[None]
        frame_pixels = torch.arange(size[axis], device=images.device)[:, None]
        weights = pixel_weights(frame_pixels, pixels, scales[axis], denominator)
        sums = weights.sum(1).clip(1)
        images = torch.round(images @ weights.T.float() / sums.float())
    return images


def answers_and_loss(network: Network, images: Tensor, labels: Tensor) -> tuple[Tensor, float, Tensor]:
    """Classify images with a network in evaluation mode.

    Returns:
        The classes that it answers, (N,) int64; the mean cross-entropy in nats; and the probabilities of its
        answer and of the right class, (N, 2) float32.
    """
    batch = max(1, min(500, CLASSIFIED // images[0].numel()))
    every, both, loss = list[Tensor](), list[Tensor](), network.mean.new_zeros(())
    with torch.inference_mode():
        for part, truth in zip(torch.split(images, batch), torch.split(labels, batch), strict=True):
            logits = network(part)
            loss += _summed_loss(logits, truth)
            answers = logits.argmax(1)
            every.append(answers)
            both.append(logits.double().softmax(1).gather(1, torch.stack([answers, truth], 1)).float())
    return torch.cat(every), loss.item() / len(labels), torch.cat(both)


def measured(
    network: Network,
    images: Tensor,
    labels: Tensor,
    batch: int = 500,
    each: Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]] = lambda work, parts: list(map(work, parts)),
) -> tuple[Tensor, Tensor]:
    """Classify images in batches, of which ``each`` does several at a time (see `nas.training.cores`).

    Returns:
        The classes that a network answers, (N,) int64, and the summed cross-entropy in nats, (), on its device.
    """
    was_training = network.training
    network.eval()

    def classified(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            logits = network(part[0].to(network.mean.device))
            return logits.argmax(1), _summed_loss(logits, part[1])

    done = each(classified, list(zip(torch.split(images, batch), torch.split(labels, batch), strict=True)))
    network.train(was_training)
    loss = network.mean.new_zeros(())
    with torch.inference_mode():
        for _, summed in done:
            loss += summed
        return torch.cat([answers for answers, _ in done]), loss


def _summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    # With one more dimension: without it, the last digits of the loss differ.
    return functional.cross_entropy(logits[:, :, None], labels[:, None], reduction="none").sum(0)[0]
